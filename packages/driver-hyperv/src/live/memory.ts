import type { MemoryBackend, MemoryLayout } from '@microvmi/core/driver'
import type { LivePartition } from './partition.ts'

const PAGE = 4096

/** Pages of one exchange with a library. */
const CHUNK = 64

/** Memory of a live partition: bytes on top of whole pages. */
export class LiveMemory implements MemoryBackend {
  readonly layout?: () => MemoryLayout
  readonly #partition: LivePartition
  readonly #pages = new Uint8Array(CHUNK * PAGE)
  /** By how many pages: their beginning of `#pages`. */
  readonly #views = Array.from({ length: CHUNK + 1 }, (_, pages) => this.#pages.subarray(0, pages * PAGE))

  constructor(partition: LivePartition) {
    this.#partition = partition
    const layout = partition.layout()
    if (typeof layout === 'string') return
    this.layout = () => {
      const now = partition.layout()
      return typeof now === 'string' ? layout : now
    }
  }

  read(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const position = address + done
      const page = Math.floor(position / PAGE)
      const skipped = position - page * PAGE
      const pages = Math.min(CHUNK, Math.ceil((skipped + into.length - done) / PAGE))
      const readable = this.#readPages(page, pages)
      const usable = Math.min(readable * PAGE - skipped, into.length - done)
      copy(this.#pages, skipped, usable, into, done)
      if (readable < pages) return done + Math.max(0, usable)
      done += usable
    }
    return into.length
  }

  write(address: number, from: Uint8Array): number {
    const memory = this.#memoryFrom(address, from.length)
    if (memory < from.length) return memory
    if (from.length > 0) this.#partition.write(address, from)
    return from.length
  }

  /** How many of the bytes from an address on are memory. */
  #memoryFrom(address: number, length: number): number {
    const end = Math.ceil((address + length) / PAGE)
    for (let page = Math.floor(address / PAGE); page < end; page += CHUNK) {
      const pages = Math.min(CHUNK, end - page)
      const readable = this.#readPages(page, pages)
      if (readable < pages) return Math.max(0, (page + readable) * PAGE - address)
    }
    return length
  }

  /** Reads pages to the beginning of `#pages`; how many, counted from the first, there are. */
  #readPages(page: number, pages: number): number {
    const view = this.#views[pages]
    if (view !== undefined && this.#partition.readPages(page, view)) return pages
    if (pages === 1) return 0
    for (let index = 0; index < pages; index += 1) {
      if (!this.#partition.readPages(page + index, this.#pages.subarray(index * PAGE, (index + 1) * PAGE))) return index
    }
    return pages
  }
}

/** A loop is faster than a view for the few bytes of most reads. */
const FEW = 64

function copy(from: Uint8Array, start: number, length: number, into: Uint8Array, at: number): void {
  if (length > FEW) into.set(from.subarray(start, start + length), at)
  else for (let index = 0; index < length; index += 1) into[at + index] = from[start + index] ?? 0
}
