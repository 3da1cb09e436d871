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
import type { MemoryMap } from './memory-map.ts'

/** Pages of a mapping that is kept: one hypercall maps them all, at little more than the cost of one. */
const BLOCK_PAGES = 16
const BLOCK = BLOCK_PAGES * PAGE_SIZE
/** 64 MiB are kept mapped at most. */
const BLOCK_LIMIT = 1024
/** Longer reads are mapped piece by piece, past what is kept. */
const LONG = 2 ** 20
/** Windows are mapped in one call; core asks for 1 GiB at most. */
const READ_WRITE = PROT_READ | PROT_WRITE
/** Reads, and milliseconds, for which nobody looks at the domain: looking at the clock takes longer than a small read. */
const UNSEEN = { reads: 64, milliseconds: 20 }

/**
 * The guest's memory, mapped. What is kept is mappings and no copies: reads see what the guest has now. A page that the
 * guest's balloon gives back stays mapped until its block is dropped.
 */
export class GuestMemory implements MemoryBackend {
  /** What breakpoints of ours have changed. */
  readonly patches = new Patches()
  readonly #foreign: ForeignMemory
  readonly #map: MemoryMap
  readonly #look: () => void
  /** By number; in the order of their use, the oldest first. */
  readonly #blocks = new Map<number, Mapping>()
  readonly #windows = new Map<Uint8Array, Mapping>()
  #lastNumber = -1
  #last: Mapping | undefined
  /** Reads until somebody looks again. */
  #unseen = 0
  #timer: NodeJS.Timeout | undefined

  /** @param look throws when the domain has gone; cheap */
  constructor(foreign: ForeignMemory, map: MemoryMap, look: () => void) {
    this.#foreign = foreign
    this.#map = map
    this.#look = look
  }

  read(address: number, into: Uint8Array): number {
    if (this.#unseen > 0) this.#unseen -= 1
    else this.#lookAtLast()
    if (this.#readAgain(address, into)) return into.length
    if (into.length >= LONG) return this.#readLong(address, into)
    for (let done = 0; done < into.length; ) {
      const at = address + done
      const number = Math.floor(at / BLOCK)
      const offset = at - number * BLOCK
      const length = Math.min(into.length - done, BLOCK - offset)
      const usable = this.#usable(number, offset, length)
      if (usable > 0) copy(this.#last, offset, usable, into, done)
      done += usable
      if (usable < length) return done
    }
    return into.length
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    this.#look()
    const single: { index: number; address: number; into: Uint8Array }[] = []
    for (const [index, { address, into }] of reads.entries()) {
      if (into.length === 0) continue
      const isOnePage = Math.floor(address / PAGE_SIZE) === Math.floor((address + into.length - 1) / PAGE_SIZE)
      if (isOnePage && !this.#blocks.has(Math.floor(address / BLOCK))) single.push({ index, address, into })
      else {
        const done = this.read(address, into)
        if (done < into.length) failed(index, address + done)
      }
    }
    const pageOf = (index: number) => Math.floor((single[index]?.address ?? 0) / PAGE_SIZE)
    for (let first = 0; first < single.length; first += BLOCK_LIMIT) {
      const count = Math.min(BLOCK_LIMIT, single.length - first)
      const mapping = this.#foreign.mapEach((index) => pageOf(first + index), count, PROT_READ)
      for (const [at, { index, address, into }] of single.slice(first, first + count).entries()) {
        if (mapping?.present[at] !== 1) failed(index, address)
        else copy(mapping, at * PAGE_SIZE + (address % PAGE_SIZE), into.length, into, 0)
      }
      if (mapping) this.#foreign.unmap(mapping)
    }
  }

  write(address: number, from: Uint8Array): number {
    const there = this.present(address, from.length)
    if (there < from.length) return there
    for (let done = 0; done < from.length; ) {
      const at = address + done
      const usable = this.#usableAt(at, from.length - done)
      if (usable === 0) return done
      this.#last?.bytes.set(from.subarray(done, done + usable), at % BLOCK)
      done += usable
    }
    return from.length
  }

  /** How many bytes of a range are there before the first page that is not. */
  present(address: number, length: number): number {
    this.#look()
    for (let done = 0; done < length; ) {
      const usable = this.#usableAt(address + done, length - done)
      if (usable === 0) return done
      done += usable
    }
    return length
  }

  layout(): MemoryLayout {
    this.#look()
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
        this.#look()
        const usable = mapping ? usableIn(mapping, at - first * PAGE_SIZE, length) : 0
        try {
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
    this.#look()
    const first = Math.floor(address / PAGE_SIZE)
    const pages = Math.ceil((address + length) / PAGE_SIZE) - first
    const mapping = this.#foreign.map(first, pages, READ_WRITE)
    if (!mapping) return 0
    const offset = address - first * PAGE_SIZE
    const usable = usableIn(mapping, offset, length)
    if (usable < length) {
      this.#foreign.unmap(mapping)
      return usable
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
    this.#drop(Math.floor(address / BLOCK))
  }

  /** Lets go of all mappings: `ForeignMemory.close` unmaps them. */
  close(): void {
    clearTimeout(this.#timer)
    this.#blocks.clear()
    this.#last = undefined
    this.#foreign.close()
  }

  /** The short way for what lies in one page of the block that was read last. */
  #readAgain(address: number, into: Uint8Array): boolean {
    const offset = address - this.#lastNumber * BLOCK
    const inPage = offset % PAGE_SIZE
    const last = this.#last
    if (!last || offset < 0 || offset >= BLOCK || inPage + into.length > PAGE_SIZE) return false
    if (last.present[(offset - inPage) / PAGE_SIZE] !== 1) return false
    copy(last, offset, into.length, into, 0)
    return true
  }

  #lookAtLast(): void {
    this.#look()
    this.#unseen = UNSEEN.reads
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#unseen = 0
    }, UNSEEN.milliseconds).unref()
  }

  #readLong(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const at = address + done
      const offset = at % PAGE_SIZE
      const length = Math.min(into.length - done, LONG - offset)
      const mapping = this.#foreign.map((at - offset) / PAGE_SIZE, Math.ceil((offset + length) / PAGE_SIZE), PROT_READ)
      const usable = mapping ? usableIn(mapping, offset, length) : 0
      if (usable > 0) copy(mapping, offset, usable, into, done)
      if (mapping) this.#foreign.unmap(mapping)
      done += usable
      if (usable < length) return done
    }
    return into.length
  }

  /** How many bytes from an address on are there within its block, which is `#last` then. */
  #usableAt(address: number, length: number): number {
    const number = Math.floor(address / BLOCK)
    const offset = address - number * BLOCK
    return this.#usable(number, offset, Math.min(length, BLOCK - offset))
  }

  #usable(number: number, offset: number, length: number): number {
    const mapping = this.#block(number)
    const usable = mapping ? usableIn(mapping, offset, length) : 0
    if (usable === length) return usable
    // What was not there may have come since.
    this.#drop(number)
    const again = this.#block(number)
    return again ? usableIn(again, offset, length) : 0
  }

  #block(number: number): Mapping | undefined {
    if (number === this.#lastNumber) return this.#last
    let mapping = this.#blocks.get(number)
    if (mapping) this.#blocks.delete(number)
    else mapping = this.#foreign.map(number * BLOCK_PAGES, BLOCK_PAGES, READ_WRITE)
    if (!mapping) return undefined
    this.#blocks.set(number, mapping)
    this.#lastNumber = number
    this.#last = mapping
    const [oldest] = this.#blocks.keys()
    if (this.#blocks.size > BLOCK_LIMIT && oldest !== undefined) this.#drop(oldest)
    return mapping
  }

  #drop(number: number): void {
    const mapping = this.#blocks.get(number)
    this.#blocks.delete(number)
    if (number === this.#lastNumber) {
      this.#lastNumber = -1
      this.#last = undefined
    }
    if (mapping) this.#foreign.unmap(mapping)
  }
}

/** How many of `length` bytes from `offset` are there before the first page that is not. */
function usableIn(mapping: Mapping, offset: number, length: number): number {
  const last = Math.floor((offset + length - 1) / PAGE_SIZE)
  for (let page = Math.floor(offset / PAGE_SIZE); page <= last; page++) {
    if (mapping.present[page] !== 1) return Math.max(0, page * PAGE_SIZE - offset)
  }
  return length
}

/** Below this many bytes a loop is faster than making a view for a copy. */
const SMALL = 16

function copy(mapping: Mapping | undefined, offset: number, length: number, into: Uint8Array, at: number): void {
  if (!mapping) return
  const { bytes } = mapping
  if (length === PAGE_SIZE && offset % PAGE_SIZE === 0) into.set(viewOf(mapping, offset / PAGE_SIZE), at)
  else if (length > SMALL) into.set(bytes.subarray(offset, offset + length), at)
  else for (let index = 0; index < length; index++) into[at + index] = bytes[offset + index] ?? 0
}

function viewOf({ bytes, views }: Mapping, page: number): Uint8Array {
  let view = views[page]
  if (!view) {
    view = bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    views[page] = view
  }
  return view
}
