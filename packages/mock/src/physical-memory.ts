import type { MemoryRange } from '@microvmi/core/driver'

const PAGE = 4096
const MIB = 2 ** 20

/** Where the low RAM of a PC ends: the video memory's window begins. */
const LOW_END = 0xa_0000
const ROM_START = 0xf_0000
const ROM_LENGTH = 0x1_0000
/** Where RAM goes on behind the window for PCI devices, which ends at 4 GiB. */
const HIGH_START = 2 ** 32

/** One page of guest-physical memory. */
export interface Page {
  readonly frame: number
  readonly view: DataView
  /** False for ROM and for what is not memory: the guest's writes go nowhere. */
  readonly writable: boolean
}

interface Block extends MemoryRange {
  readonly bytes: Uint8Array
  readonly pages: (Page | undefined)[]
}

/**
 * The guest-physical address space: RAM with the holes of a PC, a ROM, and the pages that introspection added.
 *
 * Each range is one ArrayBuffer. Its pages cost real memory only once they are written: the allocation is of zeroed
 * memory, which operating systems give on demand.
 */
export class PhysicalMemory {
  /** Changes when the ranges do. */
  generation = 1
  #blocks: readonly Block[]
  readonly #added = new Map<number, Block>()
  readonly #firstAdded: number
  #ranges: readonly MemoryRange[] | undefined

  /** @param high how many bytes of `size` lie from 4 GiB on. */
  constructor(size: number, high: number) {
    this.#blocks = [
      block(0, LOW_END, 'ram'),
      block(ROM_START, ROM_LENGTH, 'rom'),
      block(MIB, size - high - MIB, 'ram'),
      ...(high > 0 ? [block(HIGH_START, high, 'ram')] : []),
    ]
    this.#firstAdded = HIGH_START + Math.ceil((high + 1) / MIB) * MIB + MIB
  }

  /** Ascending. */
  get ranges(): readonly MemoryRange[] {
    this.#ranges ??= [...this.#blocks, ...[...this.#added.values()].sort((one, other) => one.start - other.start)].map(
      ({ start, length, kind }) => ({ start, length, kind }),
    )
    return this.#ranges
  }

  /** The page of a frame number; undefined where there is no memory. */
  page(frame: number): Page | undefined {
    const block = this.#blockOf(frame * PAGE)
    if (!block) return undefined
    const index = frame - block.start / PAGE
    let page = block.pages[index]
    if (!page) {
      const view = new DataView(block.bytes.buffer, index * PAGE, PAGE)
      page = { frame, view, writable: block.kind === 'ram' }
      block.pages[index] = page
    }
    return page
  }

  /** Fills `into` and returns its length, or the offset of the first byte that is not memory. */
  read(address: number, into: Uint8Array): number {
    return this.#inBlocks(address, into.length, (bytes, at) => into.set(bytes, at))
  }

  /** Writes all of `from`, ROM included, and returns its length; or nothing, and the offset as `read` does. */
  write(address: number, from: Uint8Array): number {
    const there = this.#inBlocks(address, from.length, () => {})
    if (there < from.length) return there
    return this.#inBlocks(address, from.length, (bytes, at) => bytes.set(from.subarray(at, at + bytes.length)))
  }

  /** The guest's own bytes; or the offset of the first that is not in one range with those before it. */
  window(address: number, length: number): Uint8Array | number {
    const block = this.#blockOf(address)
    if (!block) return 0
    const offset = address - block.start
    if (offset + length > block.length) return block.length - offset
    return block.bytes.subarray(offset, offset + length)
  }

  /** Adds a zeroed page behind all RAM. Returns its address. */
  add(): number {
    let address = this.#firstAdded
    while (this.#added.has(address)) address += PAGE
    this.#added.set(address, block(address, PAGE, 'ram'))
    this.#changed()
    return address
  }

  /** Takes a page that `add` gave away again. Returns false when there is none at `address`. */
  remove(address: number): boolean {
    if (!this.#added.delete(address)) return false
    this.#changed()
    return true
  }

  /** As after power on: all zero but the pages that were added. */
  clear(): void {
    this.#blocks = this.#blocks.map(({ start, length, kind }) => block(start, length, kind))
  }

  #changed(): void {
    this.generation += 1
    this.#ranges = undefined
  }

  #blockOf(address: number): Block | undefined {
    for (const block of this.#blocks) {
      if (address >= block.start && address < block.start + block.length) return block
    }
    return this.#added.size > 0 ? this.#added.get(address - (address % PAGE)) : undefined
  }

  #inBlocks(address: number, length: number, use: (bytes: Uint8Array, at: number) => void): number {
    let done = 0
    while (done < length) {
      const block = this.#blockOf(address + done)
      if (!block) return done
      const offset = address + done - block.start
      const bytes = block.bytes.subarray(offset, offset + length - done)
      use(bytes, done)
      done += bytes.length
    }
    return done
  }
}

function block(start: number, length: number, kind: MemoryRange['kind']): Block {
  return { start, length, kind, bytes: new Uint8Array(length), pages: [] }
}
