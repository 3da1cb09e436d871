import {
  type AbortSignalLike,
  type Capability,
  type CommonOptions,
  MicrovmiError,
  type NamesIn,
  open,
  type Vm,
} from '@microvmi/core'
import { Drivers } from './drivers.ts'
import type { Io } from './io.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** Numbers of the signals (signal(7)); a process that a signal ended has 128 more as its exit code. */
const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const

/** A signal, or the reader of our output, ended the command; everything was undone. */
export class Interrupted extends Error {
  readonly exitCode: number

  constructor(by: string, exitCode: number) {
    super(`ended by ${by}`)
    this.exitCode = exitCode
  }
}

/** What every command that opens a VM takes. */
export interface OpenFlags {
  readonly timeout?: number
}

/**
 * Opens the VM that the user named, does `work` with it, and closes it on every path. A signal releases the guest at
 * once, aborts `work`, and becomes the exit code; a second one ends the process as always. So does a reader of our
 * output that has gone, which is no failure.
 */
export async function withVm<const Required extends readonly Capability[]>(
  io: Io,
  target: string,
  flags: OpenFlags,
  require: Required,
  work: (vm: Vm<NamesIn<Required>>, signal: AbortSignalLike) => Promise<void> | void,
): Promise<void> {
  const controller = new AbortController()
  let interrupted: Interrupted | undefined
  let vm: Vm<NamesIn<Required>> | undefined
  const interrupt = (reason: Interrupted) => {
    stopListening()
    interrupted ??= reason
    controller.abort(interrupted)
    // Whatever the work is at, the guest goes first.
    vm?.release()
  }
  const handlers = SIGNALS.map((name) => {
    const onSignal = () => interrupt(new Interrupted(name, 128 + NUMBERS[name]))
    io.on(name, onSignal)
    return { name, onSignal }
  })
  const onOutputError = (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') interrupt(new Interrupted('EPIPE', 0))
  }
  io.stdout.on('error', onOutputError)
  const stopListening = () => {
    for (const { name, onSignal } of handlers) io.off(name, onSignal)
    io.stdout.off('error', onOutputError)
  }
  try {
    const { signal } = controller
    const timeout = flags.timeout === undefined ? {} : { timeout: flags.timeout }
    vm = await openTarget(io, target, { ...timeout, require, signal })
    for (const warning of vm.info.warnings) io.stderr.write(`warning: ${warning}\n`)
    if (!interrupted) await work(vm, signal)
  } catch (error) {
    throw interrupted ?? error
  } finally {
    stopListening()
    await vm?.close()
  }
  if (interrupted) throw interrupted
}

/** A target such as `kvm:debian`, or a plain name that one of the installed drivers lists. */
async function openTarget<const Required extends readonly Capability[]>(
  io: Io,
  target: string,
  options: CommonOptions<Required>,
): Promise<Vm<NamesIn<Required>>> {
  const drivers = new Drivers(io.cwd())
  const scheme = /^([a-z][a-z0-9-]*):/.exec(target)?.[1]
  if (scheme !== undefined) await drivers.importFor(scheme)
  else await drivers.importAll()
  try {
    return scheme === undefined ? await open({ vm: target, ...options }) : await open(target, options)
  } catch (error) {
    throw withFailures(error, drivers, io.cwd())
  }
}

/** Where no driver is found, one that is installed and could not be imported is what the user wants to hear of. */
function withFailures(error: unknown, drivers: Drivers, directory: string): unknown {
  if (!(error instanceof MicrovmiError)) return error
  if (error.code !== 'UNKNOWN_DRIVER' && error.code !== 'VM_NOT_FOUND') return error
  const looked = `Driver packages are looked for in node_modules, from ${directory} and from this program upwards.`
  const failures = drivers.failures.map((failure) => failure.error.message)
  return new MicrovmiError(error.code, [error.message, looked, ...failures].join('\n'), { cause: error })
}
