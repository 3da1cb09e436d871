import type { MemoryLayout, MemoryRange } from '@microvmi/core/driver'
import type { Connection } from './connection.ts'
import { isNoMemory, kernelError } from './errors.ts'
import { PAGE } from './layout.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30

/**
 * Where a PC of QEMU's can have memory, and how finely it is looked for (hw/i386/pc.c: low memory with its holes,
 * then whole MiB up to the hole below 4 GiB, the firmware at its end, and the rest from 4 GiB on).
 */
const SEARCHED = [
  { start: 0, end: 16 * MIB, step: PAGE },
  { start: 16 * MIB, end: 4 * GIB - 16 * MIB, step: 2 * MIB },
  { start: 4 * GIB - 16 * MIB, end: 4 * GIB, step: PAGE },
] as const
/** Above 4 GiB, one range: looked for by the GiB, up to here where the kernel does not tell the highest frame. */
const HIGH_LIMIT = 4 * 2 ** 40

/**
 * Where the guest has memory: KVMi has no command that tells, so pages are tried. A hole of less than 2 MiB between
 * 16 MiB and 4 GiB, or of less than 1 GiB above, can be overlooked.
 */
export class MemoryProbe {
  readonly #connection: Connection
  #layout: MemoryLayout | undefined

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Tries the pages at `count` addresses, many at a time. */
  pages(count: number, address: (index: number) => number, take: (index: number, isThere: boolean) => void): void {
    this.#connection.askAll(
      count,
      (message, index) => this.#connection.requests.readPhysical(message, address(index), 1),
      ({ error }, index) => {
        if (error !== 0 && !isNoMemory(error)) {
          throw kernelError(error, `trying the page at 0x${address(index).toString(16)}`)
        }
        take(index, error === 0)
      },
    )
  }

  /** Tried once: QEMU ends the connection when the machine is reset. */
  layout(): MemoryLayout {
    this.#layout ??= { generation: 0, ranges: this.#ranges() }
    // The answer may be old, but not from a VM that has gone.
    this.pages(
      1,
      () => this.#layout?.ranges[0]?.start ?? 0,
      () => {},
    )
    return this.#layout
  }

  #ranges(): MemoryRange[] {
    const edges = new Edges((address) => this.#isThere(address))
    for (const { start, end, step } of SEARCHED) {
      const count = (end - start) / step
      this.#note(edges, start, step, count)
    }
    const top = this.#top()
    // By the GiB, and finely at the beginning: what is there is mostly one range from 4 GiB on.
    this.#note(edges, 4 * GIB, 2 * MIB, Math.min(512, Math.ceil((top - 4 * GIB) / (2 * MIB))))
    this.#note(edges, 5 * GIB, GIB, Math.max(0, Math.ceil((top - 5 * GIB) / GIB)))
    edges.note(top, false)
    return edges.ranges()
  }

  #note(edges: Edges, start: number, step: number, count: number): void {
    const found = new Uint8Array(Math.max(0, count))
    this.pages(
      found.length,
      (index) => start + index * step,
      (index, isThere) => {
        found[index] = Number(isThere)
      },
    )
    for (const [index, isThere] of found.entries()) edges.note(start + index * step, isThere === 1)
  }

  #isThere(address: number): boolean {
    let isThere = false
    this.pages(
      1,
      () => address,
      (_, found) => {
        isThere = found
      },
    )
    return isThere
  }

  /** The first address behind all memory; above 4 GiB in any case, so that the search has an end. */
  #top(): number {
    if (this.#connection.generation.commands.getMaxGfn === undefined) return HIGH_LIMIT
    const answer = this.#connection.ask((message) => this.#connection.requests.getMaxGfn(message), 8)
    if (answer.error !== 0) return HIGH_LIMIT
    // kvmi_get_max_gfn_reply: u64 gfn. The documentation calls it the first that cannot be accessed: one more is tried.
    const frame = answer.view.getUint32(answer.start, true) + answer.view.getUint32(answer.start + 4, true) * 2 ** 32
    return Math.min(HIGH_LIMIT, Math.max(4 * GIB, (frame + 1) * PAGE))
  }
}

/** Makes ranges of samples in ascending order: between a page that is there and one that is not, it halves. */
class Edges {
  readonly #isThere: (address: number) => boolean
  readonly #ranges: { start: number; end: number }[] = []
  #last: { readonly address: number; readonly isThere: boolean } | undefined

  constructor(isThere: (address: number) => boolean) {
    this.#isThere = isThere
  }

  note(address: number, isThere: boolean): void {
    const last = this.#last
    this.#last = { address, isThere }
    const wasThere = last?.isThere ?? false
    if (isThere === wasThere) return
    const edge = last ? this.#between(last.address, address, isThere) : address
    if (isThere) this.#ranges.push({ start: edge, end: edge })
    else {
      const open = this.#ranges.at(-1)
      if (open) open.end = edge
    }
  }

  ranges(): MemoryRange[] {
    return this.#ranges.map(({ start, end }) => ({ start, length: end - start, kind: 'ram' }))
  }

  /** The first page from `before` (exclusive) to `after` (inclusive) that is as `after` is. */
  #between(before: number, after: number, isThere: boolean): number {
    let [low, high] = [before, after]
    while (high - low > PAGE) {
      const middle = low + Math.floor((high - low) / PAGE / 2) * PAGE
      if (this.#isThere(middle) === isThere) high = middle
      else low = middle
    }
    return high
  }
}
