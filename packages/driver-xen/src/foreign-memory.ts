import { PAGE_SIZE } from '@microvmi/core/driver'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

// bits/mman-linux.h
export const PROT_READ = 1
export const PROT_WRITE = 2

/** MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE */
const ANONYMOUS = 0x02 | 0x10 | 0x20 | 0x4000

const unmapWhenCollected = new FinalizationRegistry<{
  readonly address: number
  readonly length: number
  readonly munmap: (address: number, length: number) => number
}>(({ address, length, munmap }) => {
  munmap(address, length)
})

/** Guest pages in this process's memory. A page that could not be mapped must not be touched: SIGBUS. */
export interface Mapping {
  readonly address: number
  readonly bytes: Uint8Array
  /** The same bytes. */
  readonly words: DataView
  /** Which pages are there, from the first on; all of them where it is as long as the mapping. */
  readonly present: Uint8Array
  readonly pages: number
  /** Each page by itself, once it was asked for: making a view takes longer than copying a page. */
  readonly views: Uint8Array[]
}

/** Maps a domain's pages: libxenforeignmemory. */
export class ForeignMemory {
  readonly #xen: Xen
  readonly #domid: number
  readonly #handle: number
  readonly #mappings = new Set<Mapping>()
  #frames = new BigUint64Array(1024)
  /** Halves of the frames: no BigInt is made for each. */
  #words = new Uint32Array(this.#frames.buffer)
  #errors = new Int32Array(1024)

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
    this.#handle = Number(xen.libraries.foreignmemory.open(0, 0))
    if (this.#handle === 0) throw failed('xenforeignmemory_open', "the domain's memory cannot be opened")
  }

  /** Maps pages from a frame on. `undefined` where not one of them is there. */
  map(gfn: number, pages: number, protection: number): Mapping | undefined {
    return this.mapEach((index) => gfn + index, pages, protection)
  }

  /** Maps any pages, in one hypercall. */
  mapEach(gfnOf: (index: number) => number, pages: number, protection: number): Mapping | undefined {
    if (pages > this.#frames.length) {
      this.#frames = new BigUint64Array(pages)
      this.#words = new Uint32Array(this.#frames.buffer)
      this.#errors = new Int32Array(pages)
    }
    const { foreignmemory, koffi } = this.#xen.libraries
    const words = this.#words
    for (let index = 0; index < pages; index++) {
      const gfn = gfnOf(index)
      words[2 * index] = gfn
      words[2 * index + 1] = gfn / 2 ** 32
    }
    const address = Number(foreignmemory.map(this.#handle, this.#domid, protection, pages, this.#frames, this.#errors))
    if (address === 0) throw failed('xenforeignmemory_map', `${pages} pages from frame 0x${gfnOf(0).toString(16)} on`)
    const present = new Uint8Array(pages)
    let found = 0
    for (let index = 0; index < pages; index++) {
      if (this.#errors[index] !== 0) continue
      present[index] = 1
      found += 1
    }
    if (found === 0) {
      foreignmemory.unmap(this.#handle, address, pages)
      return undefined
    }
    const buffer = koffi.view(address, pages * PAGE_SIZE)
    const [bytes, view] = [new Uint8Array(buffer), new DataView(buffer)]
    const mapping: Mapping = { address, bytes, words: view, present, pages, views: [] }
    this.#mappings.add(mapping)
    return mapping
  }

  unmap(mapping: Mapping): void {
    if (!this.#mappings.delete(mapping)) return
    this.#xen.libraries.foreignmemory.unmap(this.#handle, mapping.address, mapping.pages)
  }

  /**
   * Lets go of a mapping that somebody outside may still hold a view of: touching unmapped memory would end the process.
   * So its addresses show zeros from now on, and are unmapped when the last view was collected.
   */
  discard(mapping: Mapping): void {
    if (!this.#mappings.delete(mapping)) return
    const { libc } = this.#xen.libraries
    const { address, pages, bytes } = mapping
    libc.mmap(address, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0)
    unmapWhenCollected.register(bytes.buffer, { address, length: pages * PAGE_SIZE, munmap: libc.munmap })
  }

  close(): void {
    for (const mapping of [...this.#mappings]) this.unmap(mapping)
    this.#xen.libraries.foreignmemory.close(this.#handle)
  }
}
