import type { MemoryLayout, MemoryRange } from '@microvmi/core/driver'
import type { NativeMemory } from './native.ts'

/** Windows onto a RAM file have at most this size: a `koffi.view` of over 4 GiB aborts Node 20. */
export const WINDOW = 2 ** 30

/** A RAM file's shared memory, in windows of 1 GiB. */
export interface SharedFile {
  readonly fd: number
  readonly size: number
  readonly writable: boolean
  readonly windows: readonly NativeMemory[]
}

/** A range of guest memory and how to get at it. */
export interface Region {
  readonly start: number
  readonly end: number
  readonly kind: 'ram' | 'rom'
  /** Its address in QEMU's process; undefined where that cannot be known. */
  readonly hostAddress: number | undefined
  /** Where it is in a file whose memory is shared, and these bytes themselves. */
  readonly file: { readonly shared: SharedFile; readonly offset: number; readonly bytes: Uint8Array } | undefined
}

/** A region in a shared file, cut where one window ends and the next begins. */
export function inWindows(region: Omit<Region, 'file'>, shared: SharedFile, offset: number): Region[] {
  const regions: Region[] = []
  for (let start = region.start; start < region.end; ) {
    const at = offset + (start - region.start)
    const inWindow = at % WINDOW
    const end = Math.min(region.end, start + WINDOW - inWindow)
    const bytes = shared.windows[(at - inWindow) / WINDOW]?.bytes.subarray(inWindow, inWindow + end - start)
    const hostAddress = region.hostAddress === undefined ? undefined : region.hostAddress + (start - region.start)
    regions.push({ start, end, kind: region.kind, hostAddress, file: bytes && { shared, offset: at, bytes } })
    start = end
  }
  return regions
}

/** The guest's memory as last read from QEMU, and the way from an address to its region. */
export class MemoryMap {
  readonly layout: MemoryLayout
  readonly regions: readonly Region[]
  #last: Region | undefined

  constructor(regions: readonly Region[], generation: number) {
    this.regions = regions
    this.layout = { generation, ranges: rangesOf(regions) }
  }

  /** The region that holds an address. Most reads are near the one before. */
  find(address: number): Region | undefined {
    const last = this.#last
    if (last !== undefined && address >= last.start && address < last.end) return last
    let low = 0
    let high = this.regions.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const region = this.regions[middle]
      if (region === undefined) return undefined
      if (address < region.start) high = middle - 1
      else if (address >= region.end) low = middle + 1
      else {
        this.#last = region
        return region
      }
    }
    return undefined
  }

  /** How many of `length` bytes from `address` are guest memory before the first that is not; all of RAM if writable. */
  extent(address: number, length: number, writable = false): number {
    let at = address
    while (at < address + length) {
      const region = this.find(at)
      if (region === undefined || (writable && region.kind === 'rom')) break
      at = region.end
    }
    return Math.min(length, at - address)
  }
}

/** Neighbours of one kind are one range, however they are backed. */
function rangesOf(regions: readonly Region[]): MemoryRange[] {
  const ranges: MemoryRange[] = []
  for (const { start, end, kind } of regions) {
    const last = ranges.at(-1)
    if (last?.kind === kind && last.start + last.length === start) {
      ranges[ranges.length - 1] = { start: last.start, length: end - last.start, kind }
    } else {
      ranges.push({ start, length: end - start, kind })
    }
  }
  return ranges
}
