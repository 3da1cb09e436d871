import { type MemoryLayout, type MemoryRange, PAGE_SIZE } from '@microvmi/core/driver'
import { FRAME_BATCH, FrameTypes } from './frame-types.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** Where a PV domain has memory: the machine frames that it owns. */
export class PvMemoryMap {
  readonly #xen: Xen
  readonly #domid: number
  readonly #types: FrameTypes
  #layout: MemoryLayout = { generation: 0, ranges: [] }
  #pages = -1

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
    this.#types = new FrameTypes(xen, domid)
  }

  /** The ranges as they are now. Asks anew when the domain has another number of pages. */
  layout(): MemoryLayout {
    const pages = this.#xen.domain(this.#domid)?.pages ?? 0
    if (pages === this.#pages) return this.#layout
    const ranges = rangesOf(this.#frames(pages))
    if (JSON.stringify(ranges) !== JSON.stringify(this.#layout.ranges)) {
      this.#layout = { generation: this.#layout.generation + 1, ranges }
    }
    this.#pages = pages
    return this.#layout
  }

  /** The domain's frames, the highest first: Xen gives away memory from above, and when all are found it need not go on. */
  *#frames(pages: number): Generator<number> {
    const isThere = new Uint8Array(FRAME_BATCH)
    let found = 0
    for (let end = this.#lastFrame() + 1; end > 0 && found < pages; ) {
      const first = Math.max(0, end - FRAME_BATCH)
      this.#types.markMemory(first, isThere.fill(0).subarray(0, end - first))
      for (let at = isThere.lastIndexOf(1); at >= 0; at = at > 0 ? isThere.lastIndexOf(1, at - 1) : -1) {
        found += 1
        yield first + at
      }
      end = first
    }
  }

  #lastFrame(): number {
    const last = new BigUint64Array(1)
    const { xc } = this.#xen.libraries
    if (xc.maximum_ram_page(this.#xen.handle, last) < 0) throw failed('xc_maximum_ram_page', "the machine's memory")
    return Number(last[0])
  }
}

/** The ranges, ascending, of frames that come in descending order. */
export function rangesOf(frames: Iterable<number>): MemoryRange[] {
  const runs: { first: number; count: number }[] = []
  let run: { first: number; count: number } | undefined
  for (const frame of frames) {
    if (run && frame === run.first - 1) {
      run.first = frame
      run.count += 1
    } else {
      run = { first: frame, count: 1 }
      runs.push(run)
    }
  }
  return runs
    .reverse()
    .map(({ first, count }) => ({ start: first * PAGE_SIZE, length: count * PAGE_SIZE, kind: 'ram' }))
}
