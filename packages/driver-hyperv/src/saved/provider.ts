import { failed, hresultError } from '../errors.ts'
import { type Argument, type Call, Library } from '../native.ts'

/**
 * VmSavedStateDump.h of the Windows SDK. Every function returns an HRESULT. A saved state's handle is a pointer, and so
 * is the third argument of GetRegisterValue in the first SDK (generation.ts).
 */
const REQUIRED = {
  LocateSavedStateFiles: 'int32 LocateSavedStateFiles(str16 vm, str16 snapshot, void *bin, void *vsv, void *vmrs)',
  LoadSavedStateFile: 'int32 LoadSavedStateFile(str16 vmrs, void *state)',
  LoadSavedStateFiles: 'int32 LoadSavedStateFiles(str16 bin, str16 vsv, void *state)',
  ReleaseSavedStateFiles: 'int32 ReleaseSavedStateFiles(uint64 state)',
  GetVpCount: 'int32 GetVpCount(uint64 state, void *count)',
  GetArchitecture: 'int32 GetArchitecture(uint64 state, uint32 vcpu, void *architecture)',
  GetPagingMode: 'int32 GetPagingMode(uint64 state, uint32 vcpu, void *mode)',
  GetRegisterValue: 'int32 GetRegisterValue(uint64 state, uint32 vcpu, uint64 which, void *value)',
  ReadGuestPhysicalAddress:
    'int32 ReadGuestPhysicalAddress(uint64 state, uint64 address, void *into, uint32 length, void *read)',
  GetGuestPhysicalMemoryChunks:
    'int32 GetGuestPhysicalMemoryChunks(uint64 state, void *pageSize, void *chunks, void *count)',
} as const

/** What the first SDKs lack. */
const FURTHER = {
  SetMemoryBlockCacheLimit: 'int32 SetMemoryBlockCacheLimit(uint64 state, uint64 blocks)',
  GetActiveVirtualTrustLevel: 'int32 GetActiveVirtualTrustLevel(uint64 state, uint32 vcpu, void *level)',
  GetEnabledVirtualTrustLevels: 'int32 GetEnabledVirtualTrustLevels(uint64 state, uint32 vcpu, void *levels)',
  GetGuestOsInfo: 'int32 GetGuestOsInfo(uint64 state, uint8 level, void *info)',
} as const

/** VmSavedStateDumpDefs.h, VIRTUAL_PROCESSOR_ARCH. */
export const ARCHITECTURES = { 1: 'x86', 2: 'x64', 3: 'Armv8' } as const
export const ARCHITECTURE_X64 = 2
/** VmSavedStateDumpDefs.h, PAGING_MODE, by number. */
export const PAGING_MODES = ['invalid', 'non-paged', '32-bit', 'PAE', 'long', 'Armv8'] as const
export const NON_PAGED = 1

type Required = keyof typeof REQUIRED
type Further = keyof typeof FURTHER

/** VmSavedStateDumpProvider.dll at one path. */
export class Provider {
  readonly path: string
  readonly #required: { readonly [Name in Required]: Call }
  readonly #further: { readonly [Name in Further]: Call | undefined }

  /** Throws `DRIVER_UNAVAILABLE` where it cannot be loaded or lacks an export. */
  constructor(path: string) {
    const library = new Library(path, 'it must be the one for x64; the Windows SDK has it')
    this.path = path
    this.#required = library.bind(REQUIRED)
    this.#further = {
      SetMemoryBlockCacheLimit: library.find(FURTHER.SetMemoryBlockCacheLimit),
      GetActiveVirtualTrustLevel: library.find(FURTHER.GetActiveVirtualTrustLevel),
      GetEnabledVirtualTrustLevels: library.find(FURTHER.GetEnabledVirtualTrustLevels),
      GetGuestOsInfo: library.find(FURTHER.GetGuestOsInfo),
    }
  }

  /** Calls, and throws what a failing HRESULT means. */
  call(name: Required, ...values: Argument[]): void {
    const result = this.#required[name](...values)
    if (failed(result)) throw hresultError(name, result)
  }

  /** Calls, and returns the HRESULT. */
  result(name: Required, ...values: Argument[]): number {
    return Number(this.#required[name](...values))
  }

  /** Calls what only some versions have: whether it is there and succeeded. */
  tries(name: Further, ...values: Argument[]): boolean {
    const call = this.#further[name]
    return call !== undefined && !failed(call(...values))
  }
}

/** Calls that every version answers. */
export type ProviderCalls = Pick<Provider, 'call' | 'result'>

const loaded = new Map<string, Provider>()

/** The library at a path, bound once. */
export function providerAt(path: string): Provider {
  const key = path.toLowerCase()
  const provider = loaded.get(key) ?? new Provider(path)
  loaded.set(key, provider)
  return provider
}
