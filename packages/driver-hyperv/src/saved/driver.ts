import { badArgument, type Driver, defineDriver, MicrovmiError, register } from '@microvmi/core/driver'
import { places } from '../library-path.ts'
import { checkPlatform } from '../native.ts'
import { PROMISES, savedBackend } from './backend.ts'
import { type Provider, providerAt } from './provider.ts'
import { providerPath } from './provider-path.ts'
import { checkName } from './saved-files.ts'
import { filesOf, loaded } from './saved-state.ts'

/** What can be set when a saved state is opened. */
export interface HypervSavedOptions {
  /** Path of VmSavedStateDumpProvider.dll, or of its directory. Default: beside the app, in PATH, in the newest SDK. */
  readonly provider?: string
  /** The snapshot to open, by its name, of a VM that is given by name. Default: the VM's saved state. */
  readonly snapshot?: string
  /** How many blocks of memory the library keeps unpacked; 0 for none. Default 256. */
  readonly cacheBlocks?: number
}

const CACHE_BLOCKS = 256
const MOST_CACHE_BLOCKS = 2 ** 20

/**
 * Saved states of Hyper-V's VMs, through VmSavedStateDumpProvider.dll of the Windows SDK. `vm` is a VM's name, or the
 * path of a `.vmrs` file, or of a `.bin` with its `.vsv` beside it. Read only, and always at rest.
 *
 * Throws `VM_NOT_FOUND` for a VM or file that there is not, and for a VM without a saved state; `DRIVER_UNAVAILABLE`
 * where the library is missing, is another one, or this is not Windows on x64; `DENIED`, `BUSY` as Windows does for
 * files; `PROTOCOL` for a file that is no saved state, or is damaged; `UNSUPPORTED` for guests on ARM64.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { hypervSaved } from '@microvmi/driver-hyperv'
 *
 * const vm = await open(hypervSaved, { vm: 'C:\\VMs\\web.vmrs' })
 * try {
 *   console.log(vm.info.details, vm.readRegisters(0).cr3, vm.memory.regions().ranges)
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export const hypervSaved: Driver<HypervSavedOptions, (typeof PROMISES)[number], never> = register(
  defineDriver<HypervSavedOptions>()({
    scheme: 'hyperv-saved',
    package: '@microvmi/driver-hyperv 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: PROMISES,
    possible: [],
    options: { provider: 'string', snapshot: 'string', cacheBlocks: 'number' },

    async probe() {
      try {
        return { usable: true, details: { library: providerOf(undefined).path } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list() {
      // The library finds the files of a VM by its name, and tells no names.
      return []
    },

    async open({ vm, options }) {
      const { provider: path, snapshot, cacheBlocks = CACHE_BLOCKS } = options
      checkName(vm)
      if (snapshot?.includes('\0')) throw badArgument('the name of a snapshot has a zero character in it')
      if (!Number.isInteger(cacheBlocks) || cacheBlocks < 0 || cacheBlocks > MOST_CACHE_BLOCKS) {
        throw badArgument(`cacheBlocks is a whole number from 0 to ${MOST_CACHE_BLOCKS}, not ${cacheBlocks}`)
      }
      const provider = providerOf(path)
      const files = filesOf(provider, vm, snapshot)
      const state = loaded(provider, files)
      try {
        return savedBackend(provider, state, vm, files, cacheBlocks)
      } catch (error) {
        provider.result('ReleaseSavedStateFiles', state)
        throw error
      }
    },
  }),
)

function providerOf(path: string | undefined): Provider {
  checkPlatform()
  return providerAt(providerPath(path, places()))
}
