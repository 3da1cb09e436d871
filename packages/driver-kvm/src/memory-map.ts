import type { MemoryLayout } from '@microvmi/core/driver'
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
  /** Where it is in a file whose memory is shared. */
  readonly file: { readonly shared: SharedFile; readonly offset: number } | undefined
}

/** The guest's memory as last read from QEMU, and the way from an address to its region. */
export class MemoryMap {
  readonly layout: MemoryLayout
  readonly regions: readonly Region[]
  #last: Region | undefined

  constructor(regions: readonly Region[], generation: number) {
    this.regions = regions
    this.layout = {
      generation,
      ranges: regions.map(({ start, end, kind }) => ({ start, length: end - start, kind })),
    }
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
