import { readSync, writeSync } from 'node:fs'
import koffi from 'koffi'

const PAGE = 4096
// bits/mman-linux.h
const PROT_NONE = 0
const PROT_READ_WRITE = 3
const MAP_SHARED_FIXED = 0x01 | 0x10
const MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20

const library = koffi.load('libc.so.6')

/** The C library's functions, as the driver has them and as its peer needs them. */
export const libc = {
  free: library.func('void free(uint64 address)'),
  mmap: library.func('uint64 mmap(uint64 address, size_t length, int protection, int flags, int fd, int64 offset)'),
  munmap: library.func('int munmap(uint64 address, size_t length)'),
  malloc: library.func('uint64 malloc(size_t length)'),
  memfd_create: library.func('int memfd_create(str name, uint flags)'),
  ftruncate: library.func('int ftruncate(int fd, int64 length)'),
  eventfd: library.func('int eventfd(uint initial, int flags)'),
}

/** Memory that can be mapped page by page, as a guest's: a file without a name. */
export class PeerMemory {
  readonly #fd: number
  readonly length: number
  /** Frames that cannot be mapped, below `length`. */
  readonly missing = new Set<number>()
  /** Frames that Xen shares with the guest: they can be mapped, and have no type of the guest's. */
  readonly shared = new Set<number>()
  /** The highest frame at which the guest has put anything. */
  far = 0
  /** How often pages were mapped. */
  maps = 0
  /** A PV guest's page tables: not to be mapped for writing. */
  readonly tables = new Set<number>()
  /** Frames that were added, beyond it. */
  readonly #added = new Set<number>()

  constructor(length: number) {
    this.length = length
    this.#fd = libc.memfd_create('microvmi-peer', 0)
    libc.ftruncate(this.#fd, length)
  }

  has(gfn: number): boolean {
    return (gfn * PAGE < this.length && !this.missing.has(gfn)) || this.#added.has(gfn)
  }

  get last(): number {
    return Math.max(this.length / PAGE - 1, this.far, ...this.#added)
  }

  /** How many pages there are. */
  get pages(): number {
    return this.length / PAGE + this.#added.size
  }

  add(gfn: number): void {
    this.#added.add(gfn)
    libc.ftruncate(this.#fd, Math.max(this.length, (gfn + 1) * PAGE))
    // Xen does not clear what it gives.
    this.write(gfn * PAGE, new Uint8Array(PAGE).fill(0x69))
  }

  remove(gfn: number): void {
    this.#added.delete(gfn)
  }

  /** As xenforeignmemory_map: what cannot be mapped has an error, and ends whoever touches it. */
  map(frames: readonly number[], errors: Int32Array, protection = PROT_READ_WRITE, pages = frames.length): number {
    this.maps += 1
    const address = Number(libc.mmap(0, pages * PAGE, PROT_NONE, MAP_PRIVATE_ANONYMOUS, -1, 0))
    errors.fill(-22, 0, pages)
    for (const [index, gfn] of frames.entries()) {
      if (!this.has(gfn) || (protection === PROT_READ_WRITE && this.tables.has(gfn))) continue
      errors[index] = 0
      libc.mmap(address + index * PAGE, PAGE, protection, MAP_SHARED_FIXED, this.#fd, gfn * PAGE)
    }
    return address
  }

  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    readSync(this.#fd, bytes, 0, length, address)
    return bytes
  }

  write(address: number, bytes: Uint8Array): void {
    writeSync(this.#fd, bytes, 0, bytes.length, address)
  }
}

/** A descriptor that becomes readable when it is signalled. */
export class PeerSignal {
  /** EFD_NONBLOCK */
  readonly fd = libc.eventfd(0, 0x800) as number

  raise(): void {
    writeSync(this.fd, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0))
  }

  /** Whether it had been raised since. */
  take(): boolean {
    try {
      return readSync(this.fd, new Uint8Array(8)) === 8
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return false
      throw error
    }
  }
}

/** What `xs_read` returns: memory that the caller frees. */
export function allocated(text: string): number {
  const bytes = new TextEncoder().encode(text)
  const address = Number(libc.malloc(bytes.length + 1))
  new Uint8Array(koffi.view(address, bytes.length)).set(bytes)
  return address
}
