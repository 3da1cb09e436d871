import { Library } from '../../native.ts'

/** Undocumented. As LiveCloudKd's vid.h declares them; BOOL is an int32, a handle 64 bits. */
const REQUIRED = {
  VidGetHvPartitionId: 'int VidGetHvPartitionId(int64 partition, void *id)',
  VidQueryMemoryBlockMbpCount:
    'int VidQueryMemoryBlockMbpCount(int64 partition, uint64 block, void *total, void *valid)',
  VidReadMemoryBlockPageRange:
    'int VidReadMemoryBlockPageRange(int64 partition, uint64 block, uint64 first, uint64 pages, void *into, uint64 length)',
  VidWriteMemoryBlockPageRange:
    'int VidWriteMemoryBlockPageRange(int64 partition, uint64 block, uint64 first, uint64 pages, const void *from, uint64 length)',
  VidGetVirtualProcessorState:
    'int VidGetVirtualProcessorState(int64 partition, uint32 vcpu, const void *names, uint8 count, void *values)',
  VidSetVirtualProcessorState:
    'int VidSetVirtualProcessorState(int64 partition, uint32 vcpu, const void *names, uint8 count, const void *values)',
} as const

/** Gone since Windows 10 1709. */
const FRIENDLY_NAME = 'int VidGetPartitionFriendlyName(int64 partition, void *name, uint32 characters)'

/** vid.dll's exports. */
export type VidCalls = ReturnType<typeof vidAt>

/** The library at a path. */
export function vidAt(path: string) {
  const library = new Library(path, "turn on Windows' feature Hyper-V, and restart")
  return { ...library.bind(REQUIRED), VidGetPartitionFriendlyName: library.find(FRIENDLY_NAME) }
}
