import { badArgument, type MemoryRange } from '@microvmi/core/driver'

const number = '(0x[0-9a-f]{1,13}|[0-9]{1,16})'
const region = new RegExp(`^${number}\\+${number}$`, 'i')

/** Reads the option `regions`. Without it, all of the file is memory. */
export function parseRegions(text: string | undefined, fileLength: number): readonly MemoryRange[] {
  if (text === undefined) return fileLength === 0 ? [] : [{ start: 0, length: fileLength, kind: 'ram' }]
  const ranges: MemoryRange[] = []
  let end = 0
  for (const part of text.split(',')) {
    const [, start, length] = region.exec(part) ?? []
    if (start === undefined || length === undefined) {
      throw badArgument(`regions: '${part}' is not start+length, like 0x100000+0x7f00000`)
    }
    const range: MemoryRange = { start: Number(start), length: Number(length), kind: 'ram' }
    if (range.length === 0) throw badArgument(`regions: '${part}' is empty`)
    if (range.start < end) throw badArgument(`regions: '${part}' begins before the end of the one before it`)
    end = range.start + range.length
    if (end > fileLength) throw badArgument(`regions: '${part}' goes beyond the file, which has ${fileLength} bytes`)
    ranges.push(range)
  }
  return ranges
}

/** How many of the `length` bytes from `address` are memory before the first that is not. `ranges` ascend. */
export function extent(ranges: readonly MemoryRange[], address: number, length: number): number {
  const end = address + length
  let reached = address
  for (const range of ranges) {
    if (range.start > reached) break
    reached = Math.max(reached, range.start + range.length)
    if (reached >= end) return length
  }
  return reached - address
}
