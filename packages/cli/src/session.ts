import {
  type AbortSignalLike,
  type Capability,
  type CommonOptions,
  MicrovmiError,
  type NamesIn,
  open,
  registrations,
  type Vm,
} from '@microvmi/core'
import { Drivers } from './drivers.ts'
import type { Io } from './io.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** Numbers of the signals (signal(7)); a process that a signal ended has 128 more as its exit code. */
const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const

/** A signal ended the command; everything was undone. */
export class Interrupted extends Error {
  readonly exitCode: number

  constructor(signal: (typeof SIGNALS)[number]) {
    super(`ended by ${signal}`)
    this.exitCode = 128 + NUMBERS[signal]
  }
}

/** What every command that opens a VM takes. */
export interface OpenFlags {
  readonly timeout?: number
}

/**
 * Opens the VM that the user named, does `work` with it, and closes it on every path. A signal releases the guest at
 * once, aborts `work`, and becomes the exit code.
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
  const handlers = SIGNALS.map((name) => {
    const onSignal = () => {
      interrupted ??= new Interrupted(name)
      controller.abort(interrupted)
      // Whatever the work is at, the guest goes first.
      vm?.release()
    }
    io.on(name, onSignal)
    return { name, onSignal }
  })
  try {
    const { signal } = controller
    const timeout = flags.timeout === undefined ? {} : { timeout: flags.timeout }
    vm = await openTarget(io, target, { ...timeout, require, signal })
    for (const warning of vm.info.warnings) io.stderr.write(`warning: ${warning}\n`)
    await work(vm, signal)
  } catch (error) {
    throw interrupted ?? error
  } finally {
    for (const { name, onSignal } of handlers) io.off(name, onSignal)
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
    const isTarget = scheme !== undefined && registrations().some(({ driver }) => driver.scheme === scheme)
    return isTarget || scheme !== undefined ? await open(target, options) : await open({ vm: target, ...options })
  } catch (error) {
    throw withFailures(error, drivers)
  }
}

/** Where no driver is found, one that is installed and could not be imported is what the user wants to hear of. */
function withFailures(error: unknown, drivers: Drivers): unknown {
  if (!(error instanceof MicrovmiError) || drivers.failures.length === 0) return error
  if (error.code !== 'UNKNOWN_DRIVER' && error.code !== 'VM_NOT_FOUND') return error
  const failures = drivers.failures.map((failure) => failure.error.message).join('\n')
  return new MicrovmiError(error.code, `${error.message}\n${failures}`, { cause: error })
}
