import { PAGE_SIZE } from '@microvmi/core/driver'
import type { ForeignMemory, Mapping } from './foreign-memory.ts'
import { copyOut, copyPart, usableIn, viewOf } from './mapped-bytes.ts'

/** Pages of a mapping that is kept: one hypercall maps them all, at little more than the cost of one. */
const BLOCK_PAGES = 16
const BLOCK = BLOCK_PAGES * PAGE_SIZE
/** 64 MiB are kept mapped at most. */
const BLOCK_LIMIT = 1024
const NO_PAGE = new Uint8Array(0)

/** Blocks of the guest's pages that stay mapped. What is kept is mappings and no copies: reads see what is there now. */
export class KeptBlocks {
  readonly #foreign: ForeignMemory
  readonly #protection: number
  /** By number; in the order of their use, the oldest first. */
  readonly #blocks = new Map<number, Mapping>()
  #lastNumber = -1
  #last: Mapping | undefined
  /** The page that was read last, its address, and where it is in its block; no page where it is empty. */
  #page: Uint8Array = NO_PAGE
  #words: DataView = new DataView(NO_PAGE.buffer)
  #pageAddress = 0
  #pageOffset = 0

  constructor(foreign: ForeignMemory, protection: number) {
    this.#foreign = foreign
    this.#protection = protection
  }

  /** Whether the block of an address is kept. */
  has(address: number): boolean {
    return this.#blocks.has(Math.floor(address / BLOCK))
  }

  /** Reads what lies in the page that was read last: false for all else. */
  readAgain(address: number, into: Uint8Array): boolean {
    const offset = address - this.#pageAddress
    if (offset < 0 || offset + into.length > this.#page.length) return false
    copyOut(this.#page, offset, into)
    return true
  }

  /** A little-endian word of the page that was read last; `undefined` for all else. */
  wordAgain(address: number): bigint | undefined {
    const offset = address - this.#pageAddress
    if (offset < 0 || offset + 8 > this.#page.length) return undefined
    return this.#words.getBigUint64(this.#pageOffset + offset, true)
  }

  /** Returns how many bytes there are before the first that is not there. */
  read(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const at = address + done
      const length = Math.min(into.length - done, BLOCK - (at % BLOCK))
      const usable = this.#usable(at, length)
      if (usable > 0 && this.#last) copyPart(this.#last, at % BLOCK, usable, into, done)
      done += usable
      if (usable < length) return done
    }
    this.#keepPage(address + into.length - 1)
    return into.length
  }

  /** Returns how many bytes were written before the first that is not there. */
  write(address: number, from: Uint8Array): number {
    for (let done = 0; done < from.length; ) {
      const at = address + done
      const usable = this.#usable(at, from.length - done)
      if (usable === 0) return done
      this.#last?.bytes.set(from.subarray(done, done + usable), at % BLOCK)
      done += usable
    }
    return from.length
  }

  /** How many bytes of a range are there before the first that is not. */
  present(address: number, length: number): number {
    for (let done = 0; done < length; ) {
      const usable = this.#usable(address + done, length - done)
      if (usable === 0) return done
      done += usable
    }
    return length
  }

  /** A page is about to go: its block is not kept. */
  forget(address: number): void {
    this.#drop(Math.floor(address / BLOCK))
  }

  /** Lets go of all of them, and unmaps nothing. */
  clear(): void {
    this.#blocks.clear()
    this.#lastNumber = -1
    this.#last = undefined
    this.#page = NO_PAGE
  }

  /** How many bytes from an address on are there within its block, which is `#last` then. */
  #usable(address: number, wanted: number): number {
    const number = Math.floor(address / BLOCK)
    const offset = address - number * BLOCK
    const length = Math.min(wanted, BLOCK - offset)
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
    else mapping = this.#foreign.map(number * BLOCK_PAGES, BLOCK_PAGES, this.#protection)
    if (!mapping) return undefined
    this.#blocks.set(number, mapping)
    this.#lastNumber = number
    this.#last = mapping
    const [oldest] = this.#blocks.keys()
    if (this.#blocks.size > BLOCK_LIMIT && oldest !== undefined) this.#drop(oldest)
    return mapping
  }

  /** The short way for reads that follow: the page of an address in `#last`. */
  #keepPage(address: number): void {
    if (!this.#last) return
    const page = Math.floor((address % BLOCK) / PAGE_SIZE)
    this.#page = viewOf(this.#last, page)
    this.#words = this.#last.words
    this.#pageOffset = page * PAGE_SIZE
    this.#pageAddress = this.#lastNumber * BLOCK + this.#pageOffset
  }

  #drop(number: number): void {
    const mapping = this.#blocks.get(number)
    this.#blocks.delete(number)
    if (number === this.#lastNumber) {
      this.#lastNumber = -1
      this.#last = undefined
    }
    this.#page = NO_PAGE
    if (mapping) this.#foreign.unmap(mapping)
  }
}
