import { badArgument, type Driver, defineDriver, MicrovmiError, register, type VmListing } from '@microvmi/core/driver'
import { POSSIBLE, PROMISES } from './capabilities.ts'
import type { DomainInfo } from './domain-info.ts'
import { Xen } from './xen.ts'

/** What can be set when a domain is opened. */
export interface XenOptions {
  /**
   * Microseconds, 0 to 1000, for which the next event is looked for before the process sleeps. Default 0. Where dom0 has
   * a processor to spare, 50 to 200 save the wake-up, most of what a synchronous event costs; on one processor it helps
   * nothing, and stops by itself. Only events that a handler answers at once are followed by a look.
   */
  readonly spin?: number
}

const MOST_SPIN = 1000

/**
 * Xen, from its dom0. `vm` is a domain's name, its number or its UUID.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { xen } from '@microvmi/driver-xen'
 *
 * const vm = await open(xen, { vm: 'debian' })
 * console.log(vm.info.hypervisor, vm.readRegisters(0).rip)
 * await vm.close()
 * ```
 */
export const xen: Driver<XenOptions, (typeof PROMISES)[number], (typeof POSSIBLE)[number]> = register(
  defineDriver<XenOptions>()({
    scheme: 'xen',
    package: '@microvmi/driver-xen 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: PROMISES,
    possible: POSSIBLE,
    options: { spin: 'number' },

    async probe() {
      try {
        const host = Xen.open()
        const { version } = host
        host.close()
        return { usable: true, details: { hypervisor: version } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list() {
      const host = Xen.open()
      try {
        const domains = host.domains().filter(({ isDying }) => !isDying)
        return domains.map((info) => listingOf(host, info))
      } finally {
        host.close()
      }
    },

    async open({ vm, options: { spin = 0 } }) {
      if (!(spin >= 0 && spin <= MOST_SPIN)) {
        throw badArgument(`spin is microseconds, 0 to ${MOST_SPIN}, and not ${spin}`)
      }
      const host = Xen.open()
      try {
        const info = find(host, vm)
        const hindrance = hindranceOf(host, info)
        if (hindrance !== undefined) throw new MicrovmiError('UNSUPPORTED', `domain ${vm}: ${hindrance}`)
        // What is needed to look at a domain is loaded when one is opened.
        if (!info.isHvm) {
          const { PvBackend } = await import('./pv-backend.ts')
          return new PvBackend(host, info)
        }
        const { XenBackend } = await import('./backend.ts')
        return new XenBackend(host, info, spin)
      } catch (error) {
        host.close()
        throw error
      }
    },
  }),
)

/** The domain of that name, number or UUID. */
function find(host: Xen, vm: string): DomainInfo {
  const domains = host.domains().filter(({ isDying }) => !isDying)
  const names = new Map(domains.map(({ domid }) => [domid, host.nameOf(domid)]))
  const named = domains.filter(({ domid, uuid }) => names.get(domid) === vm || uuid === vm.toLowerCase())
  const [first, second] = named.length > 0 ? named : domains.filter(({ domid }) => String(domid) === vm)
  if (first && second) {
    const numbers = named.map(({ domid }) => domid).join(', ')
    throw new MicrovmiError('VM_AMBIGUOUS', `several domains are called '${vm}': open one by its number (${numbers})`)
  }
  if (first) return first
  const all = domains.map(({ domid }) => `${names.get(domid)} (${domid})`).join(', ')
  throw new MicrovmiError('VM_NOT_FOUND', `Xen runs no domain '${vm}'. Running: ${all || 'none'}`)
}

function listingOf(host: Xen, info: DomainInfo): VmListing {
  const hindrance = hindranceOf(host, info)
  const state = info.isPaused ? 'paused' : 'running'
  const name = host.nameOf(info.domid)
  return { vm: info.uuid, name, id: info.uuid, state, ...(hindrance === undefined ? {} : { hindrance }) }
}

/** Why a domain cannot be opened, if so. */
function hindranceOf(host: Xen, { domid, isHvm, isShutDown }: DomainInfo): string | undefined {
  if (isShutDown) return 'it has shut down'
  if (!isHvm && host.addressBitsOf(domid) === 32) {
    return 'it is a PV domain of 32 bits: start a 64-bit kernel in it, or give it type="pvh" or "hvm"'
  }
  return undefined
}
