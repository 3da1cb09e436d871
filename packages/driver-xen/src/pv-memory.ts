import {
  type MemoryBackend,
  type MemoryLayout,
  type MemoryPiece,
  MicrovmiError,
  PAGE_SIZE,
  type PiecesOptions,
  type ScatteredRead,
} from '@microvmi/core/driver'
import { type ForeignMemory, type Mapping, PROT_READ } from './foreign-memory.ts'
import { GuestMemory, READ_WRITE, type Seen } from './guest-memory.ts'
import { usableIn } from './mapped-bytes.ts'
import type { PvMemoryMap } from './pv-memory-map.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/**
 * A PV domain's memory, by machine addresses. While anybody can write a page, the guest cannot make it a page table, and
 * its kernel does not survive that it cannot (Xen, arch/x86/mm.c, get_page_type(), PGT_writable_page). So what is kept
 * mapped is mapped for reading alone, and the domain is paused while a page is mapped for writing.
 */
export class PvMemory implements MemoryBackend {
  readonly #xen: Xen
  readonly #domid: number
  readonly #foreign: ForeignMemory
  readonly #domain: Seen
  readonly #reading: GuestMemory
  readonly #windows = new Map<Uint8Array, Mapping>()

  /** @param domain throws when it has gone */
  constructor(xen: Xen, domid: number, foreign: ForeignMemory, map: PvMemoryMap, domain: Seen) {
    this.#xen = xen
    this.#domid = domid
    this.#foreign = foreign
    this.#domain = domain
    this.#reading = new GuestMemory(foreign, map, domain, PROT_READ)
  }

  read(address: number, into: Uint8Array): number {
    return this.#reading.read(address, into)
  }

  readUint64(address: number): bigint | undefined {
    return this.#reading.readUint64(address)
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    this.#reading.readMany(reads, failed)
  }

  layout(): MemoryLayout {
    return this.#reading.layout()
  }

  pieces(options: PiecesOptions & { readonly pieceLength: number }): AsyncGenerator<MemoryPiece> {
    return this.#reading.pieces(options)
  }

  write(address: number, from: Uint8Array): number {
    this.#domain.look()
    this.#pause()
    try {
      const mapping = this.#mapForWriting(address, from.length)
      if (typeof mapping === 'number') return mapping
      mapping.bytes.set(from, address % PAGE_SIZE)
      this.#foreign.unmap(mapping)
      return from.length
    } finally {
      this.#unpause()
    }
  }

  map(address: number, length: number): Uint8Array | number {
    this.#domain.look()
    this.#pause()
    let window: Uint8Array | undefined
    try {
      const mapping = this.#mapForWriting(address, length)
      if (typeof mapping === 'number') return mapping
      const offset = address % PAGE_SIZE
      window = mapping.bytes.subarray(offset, offset + length)
      this.#windows.set(window, mapping)
      return window
    } finally {
      if (!window) this.#unpause()
    }
  }

  unmap(window: Uint8Array): void {
    const mapping = this.#windows.get(window)
    if (!mapping) return
    this.#windows.delete(window)
    this.#foreign.discard(mapping)
    this.#unpause()
  }

  close(): void {
    this.#reading.close()
  }

  /** The mapping, or how many bytes there are before the first that is not the domain's. */
  #mapForWriting(address: number, length: number): Mapping | number {
    const offset = address % PAGE_SIZE
    const first = (address - offset) / PAGE_SIZE
    const mapping = this.#foreign.map(first, Math.ceil((offset + length) / PAGE_SIZE), READ_WRITE)
    const usable = mapping ? usableIn(mapping, offset, length) : 0
    if (mapping && usable === length) return mapping
    if (mapping) this.#foreign.unmap(mapping)
    if (this.#reading.read(address + usable, new Uint8Array(1)) === 0) return usable
    throw new MicrovmiError(
      'UNSUPPORTED',
      `the page at 0x${(address + usable).toString(16)} is one of the PV guest's page or descriptor tables: Xen lets it be read, and nobody but itself write it`,
    )
  }

  #pause(): void {
    if (this.#xen.libraries.xc.domain_pause(this.#xen.handle, this.#domid) < 0) {
      throw failed('xc_domain_pause', `the memory of domain ${this.#domid}`)
    }
  }

  #unpause(): void {
    this.#xen.libraries.xc.domain_unpause(this.#xen.handle, this.#domid)
  }
}
