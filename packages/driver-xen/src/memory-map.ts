import { type MemoryLayout, type MemoryRange, PAGE_SIZE } from '@microvmi/core/driver'
import { type ForeignMemory, PROT_READ } from './foreign-memory.ts'
import { FRAME_BATCH, FrameTypes } from './frame-types.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** Frames beside memory that are looked at one by one. */
const NEAR = 64
/** Frames that one call maps. */
const MAPPED = 1024
/** So many frames behind twice as many as the domain has, it is not looked for more: 16 GiB. */
const FURTHER = 2 ** 22

/** Where a domain has memory: Xen is asked frame by frame, as it has no list of ranges. */
export class MemoryMap {
  readonly #xen: Xen
  readonly #domid: number
  readonly #foreign: ForeignMemory
  readonly #types: FrameTypes
  #layout: MemoryLayout = { generation: 0, ranges: [] }
  #pages = -1
  #last = -1

  constructor(xen: Xen, domid: number, foreign: ForeignMemory) {
    this.#foreign = foreign
    this.#xen = xen
    this.#domid = domid
    this.#types = new FrameTypes(xen, domid)
  }

  /** The ranges as they are now. Asks anew when the domain has another number of pages, or another last one. */
  layout(): MemoryLayout {
    const pages = this.#xen.domain(this.#domid)?.pages ?? 0
    const last = this.#lastFrame()
    if (pages === this.#pages && last === this.#last) return this.#layout
    // The last frame is where the guest, or a device that it was given, has put something.
    const ranges = this.#ranges(Math.min(last + 1, 2 * pages + FURTHER))
    if (JSON.stringify(ranges) !== JSON.stringify(this.#layout.ranges)) {
      this.#layout = { generation: this.#layout.generation + 1, ranges }
    }
    this.#pages = pages
    this.#last = last
    return this.#layout
  }

  #lastFrame(): number {
    const last = new BigUint64Array(1)
    const { xc } = this.#xen.libraries
    if (xc.domain_maximum_gpfn(this.#xen.handle, this.#domid, last) < 0) {
      throw failed('xc_domain_maximum_gpfn', 'the size of the memory map')
    }
    return Number(last[0])
  }

  #ranges(frames: number): MemoryRange[] {
    const isThere = new Uint8Array(frames)
    for (let first = 0; first < frames; first += FRAME_BATCH) {
      this.#types.markMemory(first, isThere.subarray(first, first + FRAME_BATCH))
    }
    this.#tryMapping(isThere)
    return rangesIn(isThere)
  }

  /** Pages that Xen shares with the guest have no type of the guest's, and are memory all the same. */
  #tryMapping(isThere: Uint8Array): void {
    const tried: number[] = []
    const map = () => {
      const mapping = this.#foreign.mapEach((index) => tried[index] ?? 0, tried.length, PROT_READ)
      for (const [index, frame] of tried.entries()) if (mapping?.present[index] === 1) isThere[frame] = 1
      if (mapping) this.#foreign.unmap(mapping)
      tried.length = 0
    }
    for (const frame of besideMemory(isThere)) {
      if (tried.push(frame) === MAPPED) map()
    }
    if (tried.length > 0) map()
  }
}

/** Frames that are not there, and have memory near them or an end. */
function* besideMemory(isThere: Uint8Array): Generator<number> {
  for (const [start, end] of holesIn(isThere)) {
    const middle = Math.min(end, start + NEAR)
    for (let frame = start; frame < middle; frame++) yield frame
    for (let frame = Math.max(middle, end - NEAR); frame < end; frame++) yield frame
  }
}

/** Runs of frames that are not there: the first, and the one behind the last. */
function* holesIn(isThere: Uint8Array): Generator<readonly [number, number]> {
  for (let start = isThere.indexOf(0); start >= 0; ) {
    const next = isThere.indexOf(1, start)
    const end = next < 0 ? isThere.length : next
    yield [start, end]
    start = isThere.indexOf(0, end)
  }
}

function rangesIn(isThere: Uint8Array): MemoryRange[] {
  const ranges: MemoryRange[] = []
  for (let start = isThere.indexOf(1); start >= 0; ) {
    const next = isThere.indexOf(0, start)
    const end = next < 0 ? isThere.length : next
    ranges.push({ start: start * PAGE_SIZE, length: (end - start) * PAGE_SIZE, kind: 'ram' })
    start = isThere.indexOf(1, end)
  }
  return ranges
}
