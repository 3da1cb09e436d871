import { badArgument, type Capability, type MicrovmiError } from '@microvmi/core/driver'
import { PROGRAMS, type ProgramName } from './programs.ts'

const MIB = 2 ** 20

/** A process of the guest. */
export interface ProcessOptions {
  /** At most 15 characters of ASCII. */
  readonly name: string
  /**
   * What it runs: one of the guest's own programs, or a program of yours in the guest's assembly language. A program
   * is at most 16 KiB long and begins at its first instruction.
   */
  readonly program?: ProgramName | { readonly source: string }
  /** Pages of data, from the address that programs know as `DATA`. Default 4. */
  readonly dataPages?: number
}

/** How a guest is made. */
export interface GuestOptions {
  /** Several guests may have the same one, as with real hypervisors. Default: `guest`. */
  readonly name?: string
  /** The same seed gives the same guest, down to each instruction. Default 1. */
  readonly seed?: number
  /** 1 to 64. Default 2. */
  readonly vcpus?: number
  /** vCPUs that `addVcpu` can add later, each with a process of its own. Default 0. */
  readonly spareVcpus?: number
  /** Bytes of RAM, a multiple of 4096 from 4 MiB to 2 GiB. What is not touched costs nothing. Default 16 MiB. */
  readonly memory?: number
  /** How many of them lie from 4 GiB on, behind the hole for PCI devices. Default: a quarter. */
  readonly highMemory?: number
  /** Default: `counter`, `walker`, `caller` and `sleeper`, and so on until each vCPU has two. */
  readonly processes?: readonly ProcessOptions[]
  /**
   * `manual`: the guest moves only within `run`, `runNow` and `advance`. `real`: it runs by itself, from the time it is
   * made, and keeps the process alive only while events are armed. Default `manual`.
   */
  readonly clock?: 'manual' | 'real'
  /** Instructions that a vCPU executes a second of the guest's time. Default 1,000,000. */
  readonly speed?: number
  /** Instructions between two ticks of a vCPU's timer, on average. Default 1000. */
  readonly timeSlice?: number
  /** What an event stops: its vCPU, as most hypervisors do, or the whole VM, as QEMU's gdbstub does. Default `vcpu`. */
  readonly stops?: 'vcpu' | 'vm'
  /** Capabilities that this guest's VM has not, to see what an app does without. */
  readonly lacking?: readonly Capability[]
  /** Milliseconds that every synchronous call takes, blocking, as a slow way in does. Default 0. */
  readonly latency?: number
  /** Milliseconds that `open` takes. Default 0. */
  readonly openDelay?: number
  /** What `open` throws. */
  readonly openError?: MicrovmiError
  /** How many of the newest entries `journal` keeps. Default 10,000. */
  readonly journalLength?: number
}

/** The options, all there. */
export type SettledOptions = Required<Omit<GuestOptions, 'openError'>> & Pick<GuestOptions, 'openError'>

const NAMES = Object.keys(PROGRAMS) as ProgramName[]

/** Fills in the defaults. Throws `BAD_ARGUMENT`. */
export function settle(options: GuestOptions): SettledOptions {
  const vcpus = whole('vcpus', options.vcpus ?? 2, 1, 64)
  const memory = whole('memory', options.memory ?? 16 * MIB, 4 * MIB, 2048 * MIB)
  const highMemory = whole('highMemory', options.highMemory ?? quarter(memory), 0, memory - 3 * MIB)
  if (memory % 4096 !== 0 || highMemory % 4096 !== 0) throw badArgument('memory and highMemory are multiples of 4096')
  const processes = options.processes ?? defaultProcesses(vcpus)
  for (const process of processes) check(process)
  return {
    name: options.name ?? 'guest',
    seed: whole('seed', options.seed ?? 1, 0, 2 ** 32 - 1),
    vcpus,
    spareVcpus: whole('spareVcpus', options.spareVcpus ?? 0, 0, 64),
    memory,
    highMemory,
    processes,
    clock: options.clock ?? 'manual',
    speed: whole('speed', options.speed ?? 1_000_000, 1000, 1_000_000_000),
    timeSlice: whole('timeSlice', options.timeSlice ?? 1000, 200, 1_000_000_000),
    stops: options.stops ?? 'vcpu',
    lacking: options.lacking ?? [],
    latency: whole('latency', options.latency ?? 0, 0, 60_000),
    openDelay: whole('openDelay', options.openDelay ?? 0, 0, 600_000),
    journalLength: whole('journalLength', options.journalLength ?? 10_000, 0, 10_000_000),
    ...(options.openError ? { openError: options.openError } : {}),
  }
}

function quarter(memory: number): number {
  return Math.floor(memory / 4 / 4096) * 4096
}

function defaultProcesses(vcpus: number): ProcessOptions[] {
  return Array.from({ length: Math.max(2 * vcpus, NAMES.length) }, (_, index) => {
    const program = NAMES[index % NAMES.length] ?? 'counter'
    const round = Math.floor(index / NAMES.length)
    return { name: round === 0 ? program : `${program}${round + 1}`, program }
  })
}

function check({ name, program, dataPages }: ProcessOptions): void {
  if (!/^[\x21-\x7e]{1,15}$/.test(name)) {
    throw badArgument(`a process's name has 1 to 15 characters of ASCII and no space, not '${name}'`)
  }
  if (typeof program === 'string' && !Object.hasOwn(PROGRAMS, program)) {
    throw badArgument(`there is no program '${program}': use one of ${NAMES.join(', ')}, or { source }`)
  }
  whole('dataPages', dataPages ?? 4, 1, 256)
}

function whole(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw badArgument(`${name} is a whole number from ${least} to ${most}, not ${String(value)}`)
}
