import { isReady, type Line, lastBoot, only, pagesOf } from '@microvmi/lab-qemu'

/** What a guest told on its console (guest/init.c). Addresses that may be above 2^53 are bigints. */
export interface GuestFacts {
  readonly vcpus: number
  /** The process `microvmi-known`: its pages' virtual address, and where each page is in physical memory. */
  readonly known: { readonly pid: number; readonly virtual: bigint; readonly physical: readonly number[] }
  /** Pages that nobody in the guest uses: their physical addresses. */
  readonly scratch: readonly number[]
  /** The physical address of the control page, see `controlPage`. */
  readonly control: number
  /** A process `microvmi-marks` for each vCPU, and the function that it calls at each turn. */
  readonly marks: readonly Mark[]
  /** Ranges of RAM as the guest sees them; `end` is behind the last byte. */
  readonly ram: readonly { readonly start: number; readonly end: number }[]
  /** Kernel symbols: `init_task`, `_text`, `init_top_pgt`, `entry_SYSCALL_64`. */
  readonly symbols: Readonly<Record<string, bigint>>
  /** Bytes from the start of a kernel structure to a member: `task_struct.pid` and others. */
  readonly offsets: Readonly<Record<string, number>>
}

/** A process that does once every 20 ms what hypervisors can watch. */
export interface Mark {
  readonly vcpu: number
  readonly pid: number
  /** The virtual address of the function `landmark`, which begins with a nop, and where that is in physical memory. */
  readonly landmark: bigint
  readonly physical: number
}

/** The guest's own counts, told once a second; those of marks are vCPU 0's. */
export interface Tick {
  readonly second: number
  /** Context switches since boot. */
  readonly switches: number
  /** Bytes handed from microvmi-ping to microvmi-pong or back. */
  readonly rounds: number
  readonly turns: number
  /** The int3 executed, and the signals that came for them. */
  readonly breakpoints: number
  readonly traps: number
  /** The signals that came for the trap flag. */
  readonly steps: number
  /** Writes of the MSR TSC_AUX. */
  readonly msrs: number
}

/**
 * Where things are in the control page (struct control in guest/init.c): a test in dom0 reads the counts, and writes
 * the flags. All are 64-bit words.
 */
export const controlPage = {
  magic: 'microvmi-control',
  flags: 16,
  /** While this bit of the flags is set, microvmi-ping and microvmi-pong make the kernel switch all the time. */
  flagSwitch: 1,
  rounds: 24,
  /** The counts of vCPU n begin at `vcpus + n * vcpuLength`, each at its offset there. */
  vcpus: 256,
  vcpuLength: 128,
  counts: {
    turns: 0,
    breakpoints: 8,
    traps: 16,
    steps: 24,
    msrs: 32,
    cpuids: 40,
    requests: 48,
    requestStatus: 56,
    descriptors: 64,
    cr4: 72,
    portReads: 80,
    portValue: 88,
    portWrites: 96,
  },
  /** I/O ports that nobody answers at: one is read, the other written. Reading gives ones. */
  ports: { read: 0x5a0, written: 0x5a1 },
} as const

/**
 * Reads the facts, once the guest has told all of them; `undefined` before. Throws where the guest has failed, or where
 * what it told is not whole.
 */
export function factsIn(console: string): GuestFacts | undefined {
  const lines = lastBoot(console)
  if (!isReady(lines)) return undefined
  const known = only('known', lines)
  const table = (kind: string) => lines.filter(({ name }) => name === kind)
  return {
    vcpus: only('ready', lines).number('vcpus'),
    known: { pid: known.number('pid'), virtual: known.bigint('virtual'), physical: pagesOf(known, table('page')) },
    scratch: table('scratch').map((line) => line.number('physical')),
    control: only('control', lines).number('physical'),
    marks: table('marks').map(markOf),
    ram: table('ram').map((line) => ({ start: line.number('start'), end: line.number('end') + 1 })),
    symbols: Object.fromEntries(table('symbol').map((line) => [line.text('name'), line.bigint('address')])),
    offsets: Object.fromEntries(table('offset').map((line) => [line.text('name'), line.number('bytes')])),
  }
}

/** The guest's last counts. */
export function lastTick(console: string): Tick | undefined {
  const tick = lastBoot(console)
    .filter(({ name }) => name === 'tick')
    .at(-1)
  if (!tick) return undefined
  return {
    second: tick.number('second'),
    switches: tick.number('switches'),
    rounds: tick.number('rounds'),
    turns: tick.number('turns'),
    breakpoints: tick.number('breakpoints'),
    traps: tick.number('traps'),
    steps: tick.number('steps'),
    msrs: tick.number('msrs'),
  }
}

function markOf(line: Line): Mark {
  return {
    vcpu: line.number('vcpu'),
    pid: line.number('pid'),
    landmark: line.bigint('landmark'),
    physical: line.number('physical'),
  }
}
