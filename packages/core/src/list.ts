import type { Driver, VmListing } from './contract.ts'
import { within } from './deadline.ts'
import { MicrovmiError, messageOf } from './errors.ts'
import { registrations } from './registry.ts'
import { formatTarget } from './target.ts'

/** A VM that a registered driver found: pass it to `open`. */
export interface VmEntry extends VmListing {
  /** The driver's scheme. */
  readonly driver: string
  /** The same VM in one string: what `open` takes, too. */
  readonly target: string
}

/** A driver that could not list its VMs, and why. */
export interface ListFailure {
  readonly driver: string
  readonly error: MicrovmiError
}

/** What `list` found. */
export interface Listing {
  readonly vms: readonly VmEntry[]
  readonly failures: readonly ListFailure[]
}

/** How to list. */
export interface ListOptions {
  /** Ask only this driver. Default: every registered one. */
  readonly driver?: Pick<Driver, 'scheme' | 'list'>
  /** Milliseconds for the whole listing. Default 5000. */
  readonly timeout?: number
}

/**
 * The VMs that the registered drivers can open, and which drivers could not tell. All are asked at the same time.
 *
 * @example
 * ```ts
 * import { list } from '@microvmi/core'
 *
 * const { vms, failures } = await list()
 * for (const vm of vms) console.log(vm.target, vm.state)
 * for (const { driver, error } of failures) console.warn(driver, error.message)
 * ```
 */
export async function list(options: ListOptions = {}): Promise<Listing> {
  const { timeout = 5000 } = options
  const asked = options.driver ? [{ driver: options.driver, problem: undefined }] : registrations()
  const answers = await Promise.all(
    asked.map(async ({ driver, problem }) => {
      try {
        if (problem) throw problem
        const vms = await within(driver.list({ timeout }), `listing the VMs of '${driver.scheme}'`, timeout)
        return { vms: vms.map((vm) => entry(driver, vm)), failures: [] }
      } catch (thrown) {
        return { vms: [], failures: [{ driver: driver.scheme, error: coded(thrown) }] }
      }
    }),
  )
  return { vms: answers.flatMap(({ vms }) => vms), failures: answers.flatMap(({ failures }) => failures) }
}

function entry(driver: Pick<Driver, 'scheme'>, listing: VmListing): VmEntry {
  const { scheme } = driver
  return { ...listing, driver: scheme, target: formatTarget({ scheme, vm: listing.vm }) }
}

/** Drivers throw coded errors; anything else is a fault of theirs, told as such. */
function coded(thrown: unknown): MicrovmiError {
  if (thrown instanceof MicrovmiError) return thrown
  return new MicrovmiError('HYPERVISOR', messageOf(thrown), { cause: thrown })
}
