import {
  type MemoryBackend,
  type MemoryLayout,
  type MemoryPiece,
  PAGE_SIZE,
  Patches,
  type PiecesOptions,
  type ScatteredRead,
} from '@microvmi/core/driver'
import { type ForeignMemory, type Mapping, PROT_READ, PROT_WRITE } from './foreign-memory.ts'
import { KeptBlocks } from './kept-blocks.ts'
import { copyPart, usableIn } from './mapped-bytes.ts'
import type { OpenDomain } from './open-domain.ts'

/** What tells whether the domain still is there. */
export type Seen = Pick<OpenDomain, 'look' | 'glance' | 'info'>

/** Pages that one call maps for scattered reads. */
const MOST_AT_ONCE = 1024
/** Longer reads are mapped piece by piece, past what is kept. */
const LONG = 2 ** 20
/** Windows are mapped in one call; core asks for 1 GiB at most. */
export const READ_WRITE = PROT_READ | PROT_WRITE

/**
 * The guest's memory, mapped. What is kept is mappings and no copies: reads see what the guest has now. A page that the
 * guest's balloon gives back stays mapped until its block is dropped.
 */
export class GuestMemory implements MemoryBackend {
  /** What breakpoints of ours have changed. */
  readonly patches = new Patches()
  readonly #foreign: ForeignMemory
  readonly #map: { layout(): MemoryLayout }
  readonly #domain: Seen
  readonly #kept: KeptBlocks
  readonly #windows = new Map<Uint8Array, Mapping>()

  /**
   * @param domain throws when it has gone
   * @param protection of the mappings that are kept; `write` and `map` need both rights
   */
  constructor(foreign: ForeignMemory, map: { layout(): MemoryLayout }, domain: Seen, protection = READ_WRITE) {
    this.#foreign = foreign
    this.#kept = new KeptBlocks(foreign, protection)
    this.#map = map
    this.#domain = domain
  }

  read(address: number, into: Uint8Array): number {
    this.#domain.glance()
    return this.#kept.readAgain(address, into) ? into.length : this.#readAnew(address, into)
  }

  readUint64(address: number): bigint | undefined {
    this.#domain.glance()
    return this.#kept.wordAgain(address)
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    this.#domain.look()
    const single: { index: number; address: number; into: Uint8Array }[] = []
    let found = reads.length
    const notThere = (index: number, address: number) => {
      found -= 1
      failed(index, address)
    }
    for (const [index, { address, into }] of reads.entries()) {
      if (into.length === 0) continue
      const isOnePage = Math.floor(address / PAGE_SIZE) === Math.floor((address + into.length - 1) / PAGE_SIZE)
      if (isOnePage && !this.#kept.has(address)) single.push({ index, address, into })
      else {
        const done = this.read(address, into)
        if (done < into.length) notThere(index, address + done)
      }
    }
    const pageOf = (index: number) => Math.floor((single[index]?.address ?? 0) / PAGE_SIZE)
    for (let first = 0; first < single.length; first += MOST_AT_ONCE) {
      const count = Math.min(MOST_AT_ONCE, single.length - first)
      const mapping = this.#foreign.mapEach((index) => pageOf(first + index), count, PROT_READ)
      for (const [at, { index, address, into }] of single.slice(first, first + count).entries()) {
        if (mapping?.present[at] !== 1) notThere(index, address)
        else copyPart(mapping, at * PAGE_SIZE + (address % PAGE_SIZE), into.length, into, 0)
      }
      if (mapping) this.#foreign.unmap(mapping)
    }
    this.#found(found, reads.length)
  }

  write(address: number, from: Uint8Array): number {
    const there = this.present(address, from.length)
    if (there < from.length) return there
    return this.#kept.write(address, from)
  }

  /** How many bytes of a range are there before the first page that is not. */
  present(address: number, length: number): number {
    this.#domain.look()
    return this.#found(this.#kept.present(address, length), length)
  }

  layout(): MemoryLayout {
    this.#domain.look()
    return this.#map.layout()
  }

  async *pieces({
    within,
    pieceLength,
  }: PiecesOptions & { readonly pieceLength: number }): AsyncGenerator<MemoryPiece> {
    const limit = within ? within.start + within.length : Number.POSITIVE_INFINITY
    for (const range of this.layout().ranges) {
      const end = Math.min(range.start + range.length, limit)
      for (let at = Math.max(range.start, within?.start ?? 0); at < end; ) {
        const length = Math.min(end - at, pieceLength)
        const first = Math.floor(at / PAGE_SIZE)
        const pages = Math.ceil((at + length) / PAGE_SIZE) - first
        const mapping = this.#foreign.map(first, pages, PROT_READ)
        this.#domain.look()
        const usable = mapping ? usableIn(mapping, at - first * PAGE_SIZE, length) : 0
        try {
          this.#found(usable, length)
          const offset = at - first * PAGE_SIZE
          if (mapping && usable > 0) {
            yield { address: at, length: usable, bytes: mapping.bytes.subarray(offset, offset + usable) }
          }
        } finally {
          if (mapping) this.#foreign.unmap(mapping)
        }
        // A page that has gone since the layout was told is skipped.
        at += usable === length ? length : usable + PAGE_SIZE - ((at + usable) % PAGE_SIZE)
      }
    }
  }

  map(address: number, length: number): Uint8Array | number {
    this.#domain.look()
    const first = Math.floor(address / PAGE_SIZE)
    const pages = Math.ceil((address + length) / PAGE_SIZE) - first
    const mapping = this.#foreign.map(first, pages, READ_WRITE)
    const offset = address - first * PAGE_SIZE
    const usable = mapping ? usableIn(mapping, offset, length) : 0
    if (!mapping || usable < length) {
      if (mapping) this.#foreign.unmap(mapping)
      return this.#found(usable, length)
    }
    const window = mapping.bytes.subarray(offset, offset + length)
    this.#windows.set(window, mapping)
    return window
  }

  unmap(window: Uint8Array): void {
    const mapping = this.#windows.get(window)
    this.#windows.delete(window)
    if (mapping) this.#foreign.discard(mapping)
  }

  /** A page is about to go: it is not to be kept mapped. */
  forget(address: number): void {
    this.#kept.forget(address)
  }

  /** Lets go of all mappings: `ForeignMemory.close` unmaps them. */
  close(): void {
    this.#kept.clear()
    this.#foreign.close()
  }

  /** How much of a range was found. Of a domain that has gone nothing is found, and that is said instead. */
  #found(done: number, length: number): number {
    if (done < length) this.#domain.info()
    return done
  }

  #readAnew(address: number, into: Uint8Array): number {
    const done = into.length >= LONG ? this.#readLong(address, into) : this.#kept.read(address, into)
    return this.#found(done, into.length)
  }

  #readLong(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const at = address + done
      const offset = at % PAGE_SIZE
      const length = Math.min(into.length - done, LONG - offset)
      const mapping = this.#foreign.map((at - offset) / PAGE_SIZE, Math.ceil((offset + length) / PAGE_SIZE), PROT_READ)
      const usable = mapping ? usableIn(mapping, offset, length) : 0
      if (mapping && usable > 0) copyPart(mapping, offset, usable, into, done)
      if (mapping) this.#foreign.unmap(mapping)
      done += usable
      if (usable < length) return done
    }
    return into.length
  }
}
