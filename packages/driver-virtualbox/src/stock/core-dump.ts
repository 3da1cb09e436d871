import { MicrovmiError } from '@microvmi/core/driver'

/** Where a piece of guest-physical memory lies in a core dump. */
export interface DumpedRange {
  readonly address: number
  readonly length: number
  /** In the file. */
  readonly offset: number
}

// ELF-64 object file format: the header, and a program header.
const HEADER_LENGTH = 64
const PROGRAM_HEADER_LENGTH = 56
const ET_CORE = 4
const EM_X86_64 = 62
const PT_LOAD = 1
/** VirtualBox has a program header for each range of memory: some dozens. */
const MOST_HEADERS = 4096

/** Reads `length` bytes of the file at an offset, or less at its end. */
export type ReadAt = (offset: number, length: number) => Uint8Array

/**
 * The ranges of memory in a core dump of `VBoxManage debugvm … dumpvmcore` (VirtualBox, include/VBox/vmm/dbgfcorefmt.h),
 * ascending. A range without bytes in the file is a device's, and left out. Throws `PROTOCOL`.
 */
export function rangesInDump(readAt: ReadAt, fileLength: number): DumpedRange[] {
  const header = viewOf(readAt(0, HEADER_LENGTH), HEADER_LENGTH)
  const isElf = header.getUint32(0, false) === 0x7f454c46 && header.getUint8(4) === 2 && header.getUint8(5) === 1
  if (!isElf || header.getUint16(16, true) !== ET_CORE || header.getUint16(18, true) !== EM_X86_64) {
    throw malformed('it is no ELF core of x86-64')
  }
  const start = sizeAt(header, 32)
  const [length, count] = [header.getUint16(54, true), header.getUint16(56, true)]
  if (length !== PROGRAM_HEADER_LENGTH || count > MOST_HEADERS) throw malformed(`${count} headers of ${length} bytes`)
  const headers = viewOf(readAt(start, count * length), count * length)
  const ranges: DumpedRange[] = []
  for (let at = 0; at < count * length; at += length) {
    if (headers.getUint32(at, true) !== PT_LOAD) continue
    const range = {
      offset: sizeAt(headers, at + 8),
      address: sizeAt(headers, at + 24),
      length: sizeAt(headers, at + 32),
    }
    if (range.length === 0) continue
    if (range.offset + range.length > fileLength) throw malformed(`a range goes beyond the file's ${fileLength} bytes`)
    if (range.address + range.length > 2 ** 52) throw malformed('a range goes beyond the 52 bits of an address')
    ranges.push(range)
  }
  return ranges.sort((one, other) => one.address - other.address)
}

/** The piece of the dump that holds `address`. */
export function rangeOf(ranges: readonly DumpedRange[], address: number): DumpedRange | undefined {
  return ranges.find((range) => address >= range.address && address < range.address + range.length)
}

function viewOf(bytes: Uint8Array, length: number): DataView {
  if (bytes.length < length) throw malformed('it ends in the middle of its headers')
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function sizeAt(view: DataView, offset: number): number {
  const value = view.getBigUint64(offset, true)
  if (value > BigInt(2 ** 52)) throw malformed(`a size of ${value}`)
  return Number(value)
}

function malformed(why: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the core dump cannot be read: ${why}`)
}
