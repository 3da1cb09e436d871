import { badArgument } from './errors.ts'

/** Bytes in the smallest page of x86-64. */
export const PAGE_SIZE = 4096

/**
 * The first address that no guest has: physical addresses have at most 52 bits
 * (Intel SDM volume 3A, section 4.1.4, MAXPHYADDR), so each fits a `number` exactly.
 */
export const ADDRESS_LIMIT: number = 2 ** 52

/** Bits 12 to 51 of a paging-structure entry (Intel SDM volume 3A, table 4-19 and following). */
const FRAME_MASK = 0x000f_ffff_ffff_f000n

/**
 * The guest-physical address of the page that a paging-structure entry, or CR3, points at.
 * Flags in the low 12 bits and from bit 52 on are dropped.
 */
export function pageFrame(entry: bigint): number {
  return Number(entry & FRAME_MASK)
}

/**
 * The first address of the page that holds `address`, for any address of up to 52 bits.
 * (`address & ~0xfff` is wrong from 2 GiB on: JavaScript's `&` works on 32 bits.)
 */
export function pageStart(address: number): number {
  return address - (address % PAGE_SIZE)
}

/** Throws `BAD_ARGUMENT` unless `address` and the `length` bytes from it are within 52 bits. */
export function checkRange(address: number, length: number): void {
  if (!Number.isSafeInteger(address) || address < 0) {
    throw badArgument(`a guest-physical address is a whole number from 0 to 2^52 - 1, not ${String(address)}`)
  }
  if (!Number.isSafeInteger(length) || length < 0) {
    throw badArgument(`a length is a whole number of bytes, not ${String(length)}`)
  }
  if (address + length > ADDRESS_LIMIT || address === ADDRESS_LIMIT) {
    throw badArgument(`0x${address.toString(16)} + ${length} bytes goes beyond the 52 bits of a physical address`)
  }
}

/** Throws `BAD_ARGUMENT` unless `buffer` is a Uint8Array (a Buffer is one) whose memory was not transferred away. */
export function checkBuffer(buffer: Uint8Array): void {
  if (!(buffer instanceof Uint8Array)) throw badArgument('the buffer is not a Uint8Array')
  if (buffer.length === 0 && isDetached(buffer.buffer)) {
    throw badArgument('the buffer is detached: its memory was transferred elsewhere')
  }
}

/** `ArrayBuffer.prototype.detached` came with Node 21; making a view of a detached buffer throws everywhere. */
function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer)
    return false
  } catch (error) {
    if (error instanceof TypeError) return true
    throw error
  }
}
