import { type MemoryLayout, type MemoryRange, PAGE_SIZE } from '@microvmi/core/driver'
import { type ForeignMemory, PROT_READ } from './foreign-memory.ts'
import { FRAME_BATCH, FrameTypes } from './frame-types.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** Frames beside memory that are looked at one by one. */
const NEAR = 64

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
    const ranges = this.#ranges(last)
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

  #ranges(last: number): MemoryRange[] {
    const isThere = new Uint8Array(last + 1)
    for (let first = 0; first <= last; first += FRAME_BATCH) {
      this.#types.markMemory(first, isThere.subarray(first, first + FRAME_BATCH))
    }
    for (const [start, end] of holesIn(isThere)) {
      this.#tryMapping(start, Math.min(end, start + NEAR), isThere)
      if (end - start > NEAR) this.#tryMapping(Math.max(start + NEAR, end - NEAR), end, isThere)
    }
    return rangesIn(isThere)
  }

  /** Pages that Xen shares with the guest have no type of the guest's, and are memory all the same. */
  #tryMapping(start: number, end: number, isThere: Uint8Array): void {
    const mapping = this.#foreign.map(start, end - start, PROT_READ)
    if (!mapping) return
    isThere.set(mapping.present, start)
    this.#foreign.unmap(mapping)
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
