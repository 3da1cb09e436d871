import type { Access } from './events.ts'

/** A range of guest-physical addresses. */
export interface MemoryRange {
  /** First guest-physical address. */
  readonly start: number
  /** Bytes. */
  readonly length: number
  /** `rom`: the guest sees memory there, but its writes go nowhere. */
  readonly kind: 'ram' | 'rom'
}

/** Where a guest has memory. */
export interface MemoryLayout {
  /** Changes when the ranges do. */
  readonly generation: number
  /** In ascending order; what is between them is not memory. */
  readonly ranges: readonly MemoryRange[]
}

/** One of many reads: `into.length` bytes from `address`. */
export interface ScatteredRead {
  readonly address: number
  readonly into: Uint8Array
}

/** A scattered read that could not be done. The contents of its buffer are undefined. */
export interface ReadFailure {
  /** Which of the reads, from 0. */
  readonly index: number
  /** The first byte that is not guest memory. */
  readonly address: number
}

/** A piece of guest memory on its way to a dump. */
export interface MemoryPiece {
  readonly address: number
  readonly length: number
  /** The bytes, the producer's own, valid until the next piece; `undefined` when all are known to be zero. */
  readonly bytes: Uint8Array | undefined
}

/** What to take in pieces. */
export interface PiecesOptions {
  /** Only what lies between these addresses: from `start`, `length` bytes. Default: everything. */
  readonly within?: { readonly start: number; readonly length: number }
  /** Bytes of a piece at most: a multiple of 4096 of at least 4096. Default 1 MiB. */
  readonly pieceLength?: number
}

/** `memory.read` */
export interface MemoryReading {
  /**
   * Fills `into`, a buffer of the caller's, from guest-physical memory. No short reads, no invented zeros.
   *
   * Throws `BAD_ADDRESS` with the first byte that is not guest memory (what `into` holds then is undefined),
   * `BAD_ARGUMENT` for an address beyond 52 bits or a detached buffer, `CLOSED`, `VM_GONE`, `TIMEOUT`.
   *
   * @param address guest-physical, 0 to 2^52 - 1
   */
  read(address: number, into: Uint8Array): void
  /** Like `read`, but false instead of `BAD_ADDRESS`. */
  tryRead(address: number, into: Uint8Array): boolean
  /**
   * Many reads in as few exchanges as the driver can. Returns those that failed: none is the empty array.
   * Throws `BAD_ARGUMENT` before anything is read when one of them is malformed.
   */
  readMany(reads: readonly ScatteredRead[]): readonly ReadFailure[]
  /** Little endian, like all of x86. No alignment is needed. Errors as `read`. */
  readUint8(address: number): number
  readUint16(address: number): number
  readUint32(address: number): number
  readUint64(address: number): bigint
}

/** `memory.write` */
export interface MemoryWriting {
  /**
   * Writes all of `from` to guest-physical memory. Errors as `read`; on `BAD_ADDRESS` nothing was written.
   */
  write(address: number, from: Uint8Array): void
  writeUint8(address: number, value: number): void
  writeUint16(address: number, value: number): void
  writeUint32(address: number, value: number): void
  writeUint64(address: number, value: bigint): void
}

/** `memory.regions` */
export interface MemoryRegions {
  /** Where the guest has memory now. Cheap to call again: compare `generation`. */
  regions(): MemoryLayout
  /**
   * The guest's memory in pieces, ascending, in the fastest way the driver has. The consumer decides when to let the
   * event loop run; a paused guest gives a consistent image.
   *
   * Ending the loop early releases what the pieces used.
   */
  pieces(options?: PiecesOptions): AsyncIterable<MemoryPiece>
}

/** `memory.map` */
export interface MemoryMapping {
  /**
   * Calls `use` with a window onto guest memory: no copy, the guest's own bytes, which it may change meanwhile, and
   * writes to the window change the guest. **The window must not be used after `use` returned.**
   *
   * Throws `BAD_ADDRESS` where the range is not all guest memory in one mapping, `BAD_ARGUMENT` for ranges of over
   * 1 GiB, `BUSY` for pages that hold breakpoints of ours.
   */
  map<Result>(address: number, length: number, use: (window: Uint8Array) => Result): Result
}

/** `memory.access` */
export interface MemoryAccess {
  /** Which accesses to the pages of the range the guest may make; the others stop with a `memory` event. */
  setAccess(address: number, length: number, access: Access, view?: number): void
  /** The rights of the page at `address`. */
  getAccess(address: number, view?: number): Access
}

/** `memory.alloc` */
export interface MemoryAllocation {
  /** Gives the guest one more page, zeroed, that its system does not know of. Returns its guest-physical address. */
  allocate(): number
  /** Takes a page from `allocate` away again. What is left is taken at close. */
  free(address: number): void
}
