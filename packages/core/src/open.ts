import { checkBackend } from './backend-check.ts'
import type { Capability, NamesIn, Vm } from './capability.ts'
import type { Driver } from './contract.ts'
import { aborted } from './deadline.ts'
import { badArgument, MicrovmiError } from './errors.ts'
import type { AbortSignalLike } from './events.ts'
import { explainLack } from './explain.ts'
import { list, type VmEntry } from './list.ts'
import { checkOption, readOption } from './options.ts'
import { contractProblem, driverOf } from './registry.ts'
import { restoreOnExit } from './restore-on-exit.ts'
import { parseTarget } from './target.ts'
import { OpenVm } from './vm.ts'

/** What every `open` takes. */
export interface CommonOptions<Required extends readonly Capability[] = readonly Capability[]> {
  /** What this VM must be able to do beyond what its driver promises: else `UNSUPPORTED`, with the reason. */
  readonly require?: Required
  /** Milliseconds that one exchange with the hypervisor may take. Default 5000. */
  readonly timeout?: number
  /** Gives the opening up. */
  readonly signal?: AbortSignalLike
  /**
   * Release the guest when this process exits or receives SIGINT, SIGTERM or SIGHUP. Default false: an app that has
   * handlers of its own calls `vm.release()` in them.
   */
  readonly restoreOnExit?: boolean
}

/** What `open` takes with a driver: which VM, and the driver's own options. */
export type DriverOptions<Options, Required extends readonly Capability[]> = {
  readonly vm: string
} & CommonOptions<Required> &
  Readonly<Options>

/**
 * Opens a VM: with a driver (typed by what it promises), by a target string or an entry of `list`, or by name through
 * whichever registered driver lists it. What is in `require` is in the Vm's type.
 *
 * Throws `UNKNOWN_DRIVER`, `DRIVER_CONFLICT`, `CONTRACT_MISMATCH`, `DRIVER_UNAVAILABLE`, `VM_NOT_FOUND`,
 * `VM_AMBIGUOUS`, `UNSUPPORTED`, `BAD_ARGUMENT`, `DENIED`, `BUSY`, `TIMEOUT`, `ABORTED`, `PROTOCOL`.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 *
 * const vm = await open('mock:demo', { require: ['memory.read'] })
 * try {
 *   console.log(vm.memory.readUint64(0x1000))
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export function open<
  Options extends object,
  Promised extends Capability,
  Possible extends Capability,
  const Required extends readonly (Promised | Possible)[] = [],
>(
  driver: Driver<Options, Promised, Possible>,
  options: DriverOptions<Options, Required>,
): Promise<Vm<Promised | NamesIn<Required>>>
export function open<const Required extends readonly Capability[] = []>(
  target: string | VmEntry,
  options?: CommonOptions<Required>,
): Promise<Vm<NamesIn<Required>>>
export function open<const Required extends readonly Capability[] = []>(
  options: { readonly vm: string } & CommonOptions<Required>,
): Promise<Vm<NamesIn<Required>>>
export async function open(
  first: Driver | VmEntry | string | ({ readonly vm: string } & CommonOptions),
  given: object = {},
): Promise<unknown> {
  if (typeof first === 'string') return openTarget(first, given)
  if (typeof first !== 'object' || first === null)
    throw badArgument('open takes a driver, a target such as "kvm:debian", or { vm }')
  if ('scheme' in first) return openWith(first, given)
  if ('target' in first) return openTarget(first.target, given)
  return openByName(first)
}

async function openTarget(text: string, common: CommonOptions): Promise<OpenVm> {
  const target = parseTarget(text)
  const driver = driverOf(target.scheme)
  const options: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(target.options)) options[name] = readOption(driver, name, value)
  return openWith(driver, { ...options, ...common, vm: target.vm })
}

async function openByName(options: { readonly vm: string } & CommonOptions): Promise<OpenVm> {
  const { vm: name, ...common } = options
  if (typeof name !== 'string') throw badArgument('open takes a driver, a target such as "kvm:debian", or { vm }')
  const { vms, failures } = await list(options.timeout === undefined ? {} : { timeout: options.timeout })
  const found = vms.filter((vm) => vm.name === name || vm.vm === name)
  const [only] = found
  if (only && found.length === 1) return openTarget(only.target, common)
  if (only) {
    const targets = found.map(({ target, state }) => `${target} (${state})`).join(', ')
    throw new MicrovmiError('VM_AMBIGUOUS', `several VMs are called '${name}': ${targets}. Open one by its target.`)
  }
  const why = failures.map(({ driver, error }) => ` ${driver}: ${error.message}.`).join('')
  const seen = vms.map(({ target }) => target).join(', ')
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    `no driver lists a VM '${name}'. ${seen ? `Listed: ${seen}.` : 'None is listed.'}${why}`,
  )
}

async function openWith(driver: Driver, given: object): Promise<OpenVm> {
  const problem = contractProblem(driver)
  if (problem) throw problem
  const {
    vm,
    require,
    timeout = 5000,
    signal,
    restoreOnExit: restore,
    ...options
  } = given as DriverOptions<object, readonly Capability[]>
  if (typeof vm !== 'string' || vm === '')
    throw badArgument(`open needs the VM's name: open(${driver.scheme}, { vm: 'name' })`)
  if (typeof timeout !== 'number' || !(timeout > 0))
    throw badArgument(`timeout is a number of milliseconds, not ${String(timeout)}`)
  for (const name of Object.keys(options)) checkOption(driver, name)
  if (signal?.aborted) throw aborted(`opening ${driver.scheme}:${vm}`, signal)
  const backend = await driver.open({ vm, options, timeout, signal })
  try {
    checkBackend(driver, backend)
    const opened = new OpenVm(driver.scheme, backend)
    for (const capability of require ?? [])
      if (!opened.capabilities.has(capability)) throw opened[explainLack](capability)
    if (restore) restoreOnExit(opened)
    return opened
  } catch (error) {
    backend.release()
    await backend.close()
    throw error
  }
}
