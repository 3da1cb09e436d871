import { badArgument, type Driver, defineDriver, MicrovmiError, register, type VmListing } from '@microvmi/core/driver'
import { checkPlatform } from '../native.ts'
import { FDP_PROMISES, FdpBackend } from './backend.ts'
import { FdpChannel } from './channel.ts'
import { channelNames } from './channel-file.ts'
import { NATURAL, PACKED } from './layout.ts'
import { findServer } from './server-process.ts'

/** What can be set when a VM is opened. */
export interface FdpOptions {
  /** How the server's compiler lays requests out: `natural` (Linux, the default) or `packed` (Windows). */
  readonly layout?: 'natural' | 'packed'
}

/** Where POSIX shared memory is on Linux (man 7 shm_overview). */
const DIRECTORY = '/dev/shm'

/**
 * VirtualBox with the FDP patch. `vm` is the VM's name.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { fdp } from '@microvmi/driver-virtualbox'
 *
 * const vm = await open(fdp, { vm: 'win10' })
 * try {
 *   for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) console.log(event.vcpu, event.new)
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export const fdp: Driver<FdpOptions, (typeof FDP_PROMISES)[number], never> = register(
  defineDriver<FdpOptions>()({
    scheme: 'fdp',
    package: '@microvmi/driver-virtualbox 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: FDP_PROMISES,
    possible: [],
    options: { layout: 'string' },

    async probe() {
      try {
        checkPlatform()
        return { usable: true, details: { channels: String(channelNames(DIRECTORY).length) } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list() {
      checkPlatform()
      return channelNames(DIRECTORY).map(listingOf)
    },

    async open({ vm, options, timeout }) {
      checkPlatform()
      const { layout = 'natural' } = options
      if (layout !== 'natural' && layout !== 'packed') throw badArgument(`layout is natural or packed, not '${layout}'`)
      const requests = layout === 'packed' ? PACKED : NATURAL
      return new FdpBackend(new FdpChannel(DIRECTORY, vm, requests, timeout), requests)
    },
  }),
)

function listingOf(name: string): VmListing {
  const search = findServer(DIRECTORY, name)
  const listing = { vm: name, name, id: name }
  if (search.found || !search.certain) return { ...listing, state: 'unknown' }
  return { ...listing, state: 'stopped', hindrance: 'it has ended, and left its channel behind: start it again' }
}
