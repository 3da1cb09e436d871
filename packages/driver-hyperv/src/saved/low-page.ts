import { MicrovmiError } from '@microvmi/core/driver'
import { type Call, Library } from '../native.ts'

/** memoryapi.h, winnt.h; RtlMoveMemory is exported by kernel32 too. */
const KERNEL32 = {
  VirtualAlloc: 'uint64 VirtualAlloc(uint64 address, uint64 length, uint32 type, uint32 protection)',
  VirtualFree: 'int32 VirtualFree(uint64 address, uint64 length, uint32 type)',
  RtlMoveMemory: 'void RtlMoveMemory(uint64 to, const void *from, uint64 length)',
} as const
/** The same function, for the other direction. */
const COPY_OUT = 'void RtlMoveMemory(void *to, uint64 from, uint64 length)'

const MEM_COMMIT_RESERVE = 0x3000
const MEM_RELEASE = 0x8000
const PAGE_READWRITE = 4
const PAGE = 4096n
/** Multiples of 4 GiB to try: most of a new process's 128 TiB are free. */
const PLACES = Array.from({ length: 512 }, (_, index) => BigInt(index + 16) << 32n)

/**
 * Calls `use` with a page of memory at a multiple of 4 GiB: the low half of an address in it is a small number, so that
 * one argument is an address for a function that takes a pointer, and a number for one that takes 32 bits.
 */
export function withLowPage<Result>(use: (page: LowPage) => Result): Result {
  const library = new Library('kernel32.dll', 'it is part of Windows')
  const kernel = library.bind(KERNEL32)
  const copyOut = library.find(COPY_OUT)
  const address = PLACES.find((place) => allocated(kernel.VirtualAlloc, place))
  if (address === undefined || copyOut === undefined) {
    throw new MicrovmiError('HYPERVISOR', 'no memory could be allocated at a multiple of 4 GiB: start the app anew')
  }
  try {
    return use({
      address,
      write: (offset, bytes) => void kernel.RtlMoveMemory(address + BigInt(offset), bytes, bytes.length),
      read: (offset, into) => void copyOut(into, address + BigInt(offset), into.length),
    })
  } finally {
    kernel.VirtualFree(address, 0n, MEM_RELEASE)
  }
}

/** Memory whose first address is a multiple of 4 GiB. Offsets are below 4096 bytes. */
export interface LowPage {
  readonly address: bigint
  write(offset: number, bytes: Uint8Array): void
  read(offset: number, into: Uint8Array): void
}

function allocated(allocate: Call, place: bigint): boolean {
  return BigInt(allocate(place, PAGE, MEM_COMMIT_RESERVE, PAGE_READWRITE)) === place
}
