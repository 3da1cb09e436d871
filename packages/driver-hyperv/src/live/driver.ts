import { release } from 'node:os'
import { badArgument, type Driver, defineDriver, MicrovmiError, register } from '@microvmi/core/driver'
import { checkPlatform } from '../native.ts'
import { checkFree, HypervBackend, POSSIBLE, PROMISES } from './backend.ts'
import { normalId } from './guid.ts'
import { type HostVm, hostVms } from './host-vms.ts'
import { chosen, mergedListings } from './listings.ts'
import type { PartitionName, PartitionSource, Way } from './partition.ts'
import { firstWorking, type SourceOptions } from './sources.ts'

/** What can be set when a partition is opened. */
export interface HypervOptions extends SourceOptions {
  /** The only way to use: `hvlib` or `vid`. Default: hvlib where it is there, else vid. */
  readonly way?: Way
}

/** The greatest part of a listing's time that the host's management may take. */
const HOST_SHARE = 0.8

/**
 * Partitions that run on this host, through LiveCloudKd's hvlib.dll, or, on Windows versions that allow it, through
 * vid.dll. `vm` is a VM's name, or its GUID. Needs administrator rights.
 *
 * There are no events: Windows hands the intercepts of a partition to the process that created it, and to no other.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { hyperv } from '@microvmi/driver-hyperv'
 *
 * const vm = await open(hyperv, { vm: 'Windows 11', hvlib: 'C:\\LiveCloudKd' })
 * try {
 *   console.log(vm.info.details, vm.readRegisters(0).rip)
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export const hyperv: Driver<HypervOptions, (typeof PROMISES)[number], (typeof POSSIBLE)[number]> = register(
  defineDriver<HypervOptions>()({
    scheme: 'hyperv',
    package: '@microvmi/driver-hyperv 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: PROMISES,
    possible: POSSIBLE,
    options: { way: 'string', hvlib: 'string', vid: 'string' },

    async probe() {
      try {
        checkPlatform()
        const { source } = firstWorking({}, undefined, PROBE_TIMEOUT)
        return { usable: true, details: { way: `${source.way}.dll`, windows: release() } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list({ timeout }) {
      checkPlatform()
      const { partitions } = firstWorking({}, undefined, timeout)
      return mergedListings(partitions, await hostVms(timeout * HOST_SHARE))
    },

    async open({ vm, options, timeout, signal }) {
      checkPlatform()
      const { way } = options
      if (way !== undefined && way !== 'hvlib' && way !== 'vid') {
        throw badArgument(`way is hvlib or vid, not '${String(way)}'`)
      }
      const { source, partitions } = firstWorking(options, way, timeout)
      const host = await namesOf(vm, partitions, timeout)
      if (signal?.aborted) throw new MicrovmiError('ABORTED', 'opening was aborted')
      return opened(source, chosen(vm, partitions, host))
    },
  }),
)

/** Milliseconds. */
const PROBE_TIMEOUT = 5000

/** The host's names, where the library does not tell them and the VM is not asked for by id. */
async function namesOf(vm: string, partitions: readonly PartitionName[], timeout: number): Promise<readonly HostVm[]> {
  const isNamed = partitions.every(({ name }) => name !== '')
  return isNamed || partitions.some(({ id }) => id === normalId(vm)) ? [] : hostVms(timeout * HOST_SHARE)
}

function opened(source: PartitionSource, partition: PartitionName): HypervBackend {
  checkFree(partition)
  return new HypervBackend(source.open(partition), source.way, release())
}
