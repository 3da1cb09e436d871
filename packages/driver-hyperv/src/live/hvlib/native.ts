import { MicrovmiError } from '@microvmi/core/driver'
import { Library } from '../../native.ts'

export const WHERE_FROM =
  'hvlib.dll comes with LiveCloudKd (github.com/gerhart01/LiveCloudKd, releases); its licence forbids shipping it ' +
  'with this package. Put hvlib.dll and hvmm.sys into one directory and name it with the option hvlib, or in PATH'

/** LiveCloudKdSdk/public/HvlibHandle.h; BOOLEAN is a uint8. */
const REQUIRED = {
  SdkGetDefaultConfig: 'uint8 SdkGetDefaultConfig(void *config)',
  SdkEnumPartitions: 'uint64 SdkEnumPartitions(void *count, void *config)',
  SdkSelectPartition: 'uint8 SdkSelectPartition(uint64 partition)',
  SdkGetData: 'uint8 SdkGetData(uint64 partition, int what, void *out)',
  SdkGetData2: 'uint64 SdkGetData2(uint64 partition, int what)',
  SdkReadPhysicalMemory:
    'uint8 SdkReadPhysicalMemory(uint64 partition, uint64 address, uint64 length, void *into, int method)',
  SdkWritePhysicalMemory:
    'uint8 SdkWritePhysicalMemory(uint64 partition, uint64 address, uint64 length, const void *from, int method)',
  SdkReadVpRegister: 'uint8 SdkReadVpRegister(uint64 partition, uint32 vcpu, int vtl, uint32 name, void *value)',
  SdkWriteVpRegister: 'uint8 SdkWriteVpRegister(uint64 partition, uint32 vcpu, int vtl, uint32 name, void *value)',
  SdkControlVmState: 'uint8 SdkControlVmState(uint64 partition, int action, int method, uint8 manageWorker)',
  SdkClosePartition: 'void SdkClosePartition(uint64 partition)',
} as const

/** HvlibEnumPublic.h, HVMM_INFORMATION_CLASS. */
export const INFORMATION = {
  partitionFriendlyName: 1,
  partitionId: 2,
  vmTypeString: 3,
  vmGuidString: 20,
  isNeedVmwpSuspend: 34,
  isVmSuspended: 46,
} as const

/** HvlibEnumPublic.h: VM_STATE_ACTION, SUSPEND_RESUME_METHOD, VTL_LEVEL. */
export const SUSPEND_VM = 0
export const RESUME_VM = 1
export const WRITE_SPEC_REGISTER = 2
export const VTL0 = 0

/** hvlib.dll's exports. */
export type HvlibCalls = ReturnType<typeof bound>

const loaded = new Map<string, { readonly path: string; readonly calls: HvlibCalls }>()

/** The library at a path; the same while the process lives, for it keeps state of its own. */
export function hvlibAt(path: string): { readonly path: string; readonly calls: HvlibCalls } {
  const before = loaded.get(path.toLowerCase())
  if (before) return before
  const library = { path, calls: bound(path) }
  loaded.set(path.toLowerCase(), library)
  return library
}

function bound(path: string) {
  const library = new Library(path, WHERE_FROM)
  try {
    return library.bind(REQUIRED)
  } catch (error) {
    if (!(error instanceof MicrovmiError)) throw error
    throw new MicrovmiError(error.code, `${error.message}. ${WHERE_FROM}`, { cause: error.cause })
  }
}
