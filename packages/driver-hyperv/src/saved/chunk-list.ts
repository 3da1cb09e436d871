import { ADDRESS_LIMIT, type MemoryLayout, type MemoryRange, MicrovmiError } from '@microvmi/core/driver'

/** VmSavedStateDumpDefs.h, GPA_MEMORY_CHUNK: the first page's index and the number of pages, 8 bytes each. */
export const CHUNK_SIZE = 16
/** More chunks than any guest has: a count that sizes a buffer is checked against it. */
export const MOST_CHUNKS = 65_536
const PAGE_SIZES: ReadonlySet<number> = new Set([4096, 2 ** 21, 2 ** 30])

/**
 * The layout that a list of chunks describes: ascending, neighbours joined. Throws `PROTOCOL` for a page size that no
 * processor has, for chunks that overlap, and for those beyond 52 bits.
 */
export function layoutOf(chunks: Uint8Array, pageSize: bigint): MemoryLayout {
  const page = Number(pageSize)
  if (!PAGE_SIZES.has(page)) throw malformed(`a page size of ${pageSize} bytes`)
  if (chunks.length % CHUNK_SIZE !== 0) throw malformed(`${chunks.length} bytes of chunks of ${CHUNK_SIZE}`)
  const view = new DataView(chunks.buffer, chunks.byteOffset, chunks.length)
  const ranges: { start: number; length: number; kind: 'ram' }[] = []
  for (let offset = 0; offset < chunks.length; offset += CHUNK_SIZE) {
    const start = view.getBigUint64(offset, true) * pageSize
    const length = view.getBigUint64(offset + 8, true) * pageSize
    if (start + length > BigInt(ADDRESS_LIMIT)) throw malformed(`a chunk at 0x${start.toString(16)} beyond 52 bits`)
    if (length > 0n) ranges.push({ start: Number(start), length: Number(length), kind: 'ram' })
  }
  ranges.sort((one, other) => one.start - other.start)
  const joined: MemoryRange[] = []
  for (const range of ranges) {
    const last = joined.at(-1)
    const end = last === undefined ? 0 : last.start + last.length
    if (last && range.start < end) throw malformed(`chunks that overlap at 0x${range.start.toString(16)}`)
    if (last && range.start === end) joined[joined.length - 1] = { ...last, length: last.length + range.length }
    else joined.push(range)
  }
  return { generation: 0, ranges: joined }
}

/** How many bytes from `address` on, up to `length`, are in the ranges without a gap. */
export function coveredFrom(ranges: readonly MemoryRange[], address: number, length: number): number {
  let low = 0
  let high = ranges.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const range = ranges[middle]
    if (range && range.start + range.length <= address) low = middle + 1
    else high = middle
  }
  const range = ranges[low]
  if (!range || address < range.start) return 0
  // Neighbours are joined: what is not in this one is a hole.
  return Math.min(length, range.start + range.length - address)
}

function malformed(what: string): MicrovmiError {
  return new MicrovmiError(
    'PROTOCOL',
    `the saved state's memory chunk list has ${what}: the file is damaged, or the library is too old for it`,
  )
}
