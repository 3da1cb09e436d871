import { checkBuffer, checkRange, PAGE_SIZE } from './address.ts'
import type { MemoryBackend } from './backend.ts'
import { badAddress, badArgument, MicrovmiError } from './errors.ts'
import type { Access } from './events.ts'
import type {
  MemoryAccess,
  MemoryAllocation,
  MemoryLayout,
  MemoryMapping,
  MemoryPiece,
  MemoryReading,
  MemoryRegions,
  MemoryWriting,
  PiecesOptions,
  ReadFailure,
  ScatteredRead,
} from './memory.ts'
import { partOf, type Session } from './session.ts'

/** Windows of over 1 GiB are refused: an ArrayBuffer over native memory of 4 GiB and more aborts Node 20. */
const MAP_LIMIT = 2 ** 30
const DEFAULT_PIECE = 2 ** 20
const ACCESSES: ReadonlySet<string> = new Set<Access>(['none', 'r', 'w', 'x', 'rw', 'rx', 'wx', 'rwx'])
const NO_FAILURES: readonly ReadFailure[] = Object.freeze([])

/** Guest memory as apps see it: every argument checked, our own patches hidden, one plain loop where a backend has none. */
export class GuestMemory
  implements MemoryReading, MemoryWriting, MemoryRegions, MemoryMapping, MemoryAccess, MemoryAllocation
{
  readonly #session: Session
  readonly #backend: MemoryBackend
  readonly #word = new Uint8Array(8)
  readonly #words: readonly [Uint8Array, Uint8Array, Uint8Array]
  readonly #view = new DataView(this.#word.buffer)

  constructor(session: Session, backend: MemoryBackend) {
    this.#session = session
    this.#backend = backend
    this.#words = [this.#word.subarray(0, 1), this.#word.subarray(0, 2), this.#word.subarray(0, 4)]
  }

  read(address: number, into: Uint8Array): void {
    const done = this.#read(address, into)
    if (done !== into.length) throw badAddress(address + done)
  }

  tryRead(address: number, into: Uint8Array): boolean {
    return this.#read(address, into) === into.length
  }

  readMany(reads: readonly ScatteredRead[]): readonly ReadFailure[] {
    this.#session.check()
    for (const { address, into } of reads) {
      checkBuffer(into)
      checkRange(address, into.length)
    }
    let failures: ReadFailure[] | undefined
    const failed = (index: number, address: number): void => {
      failures ??= []
      failures.push({ index, address })
    }
    if (this.#backend.readMany) this.#backend.readMany(reads, failed)
    else readOneByOne(this.#backend, reads, failed)
    const patches = this.#backend.patches
    if (patches && patches.size > 0) for (const { address, into } of reads) patches.hide(address, into)
    return failures ?? NO_FAILURES
  }

  readUint8(address: number): number {
    this.read(address, this.#words[0])
    return this.#view.getUint8(0)
  }

  readUint16(address: number): number {
    this.read(address, this.#words[1])
    return this.#view.getUint16(0, true)
  }

  readUint32(address: number): number {
    this.read(address, this.#words[2])
    return this.#view.getUint32(0, true)
  }

  readUint64(address: number): bigint {
    const backend = this.#backend
    if (backend.readUint64 && !backend.patches?.size) {
      this.#session.check()
      checkRange(address, 8)
      const word = backend.readUint64(address)
      if (word !== undefined) return word
    }
    this.read(address, this.#word)
    return this.#view.getBigUint64(0, true)
  }

  write(address: number, from: Uint8Array): void {
    this.#session.need('memory.write')
    checkBuffer(from)
    checkRange(address, from.length)
    if (from.length === 0) return
    const write = partOf(this.#backend.write?.bind(this.#backend), 'memory.write', this.#session)
    const patches = this.#backend.patches
    if (patches && patches.size > 0 && patches.touches(address, from.length)) {
      const preserved = patches.preserve(address, from)
      this.#wrote(address, from, write(address, preserved.bytes))
      preserved.commit()
    } else {
      this.#wrote(address, from, write(address, from))
    }
  }

  writeUint8(address: number, value: number): void {
    this.#writeNumber(address, value, 0)
  }

  writeUint16(address: number, value: number): void {
    this.#writeNumber(address, value, 1)
  }

  writeUint32(address: number, value: number): void {
    this.#writeNumber(address, value, 2)
  }

  writeUint64(address: number, value: bigint): void {
    if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) {
      throw badArgument(`a 64-bit word is a bigint from 0n to 2n ** 64n - 1n, not ${String(value)}`)
    }
    this.#view.setBigUint64(0, value, true)
    this.write(address, this.#word)
  }

  regions(): MemoryLayout {
    this.#session.need('memory.regions')
    return partOf(this.#backend.layout?.bind(this.#backend), 'memory.regions', this.#session)()
  }

  async *pieces(options: PiecesOptions = {}): AsyncGenerator<MemoryPiece, void, undefined> {
    this.#session.need('memory.regions')
    const { pieceLength = DEFAULT_PIECE, within } = options
    if (!Number.isSafeInteger(pieceLength) || pieceLength < PAGE_SIZE || pieceLength % PAGE_SIZE !== 0) {
      throw badArgument(`pieceLength is a multiple of ${PAGE_SIZE}, not ${String(pieceLength)}`)
    }
    if (within) checkRange(within.start, within.length)
    const settled = within ? { pieceLength, within } : { pieceLength }
    const pieces = this.#backend.pieces?.(settled) ?? this.#readInPieces(pieceLength, within)
    for await (const piece of pieces) {
      this.#session.check()
      yield this.#withoutPatches(piece)
    }
  }

  map<Result>(address: number, length: number, use: (window: Uint8Array) => Result): Result {
    this.#session.need('memory.map')
    checkRange(address, length)
    if (length === 0 || length > MAP_LIMIT) {
      throw badArgument(`a window has 1 to ${MAP_LIMIT} bytes, not ${length}: take several`)
    }
    if (this.#backend.patches?.touches(address, length)) {
      throw new MicrovmiError('BUSY', 'a breakpoint of ours is in these pages: read() hides it, a window cannot')
    }
    const window = partOf(this.#backend.map?.bind(this.#backend), 'memory.map', this.#session)(address, length)
    if (typeof window === 'number') throw badAddress(address + window, 'is not in one mapping with the bytes before it')
    try {
      return use(window)
    } finally {
      this.#backend.unmap?.(window)
    }
  }

  setAccess(address: number, length: number, access: Access, view?: number): void {
    this.#session.need('memory.access')
    checkRange(address, length)
    if (!ACCESSES.has(access))
      throw badArgument(`'${String(access)}' is no access: use one of ${[...ACCESSES].join(', ')}`)
    partOf(this.#backend.setAccess?.bind(this.#backend), 'memory.access', this.#session)(address, length, access, view)
  }

  getAccess(address: number, view?: number): Access {
    this.#session.need('memory.access')
    checkRange(address, 1)
    return partOf(this.#backend.getAccess?.bind(this.#backend), 'memory.access', this.#session)(address, view)
  }

  allocate(): number {
    this.#session.need('memory.alloc')
    return partOf(this.#backend.allocate?.bind(this.#backend), 'memory.alloc', this.#session)()
  }

  free(address: number): void {
    this.#session.need('memory.alloc')
    checkRange(address, PAGE_SIZE)
    partOf(this.#backend.free?.bind(this.#backend), 'memory.alloc', this.#session)(address)
  }

  #read(address: number, into: Uint8Array): number {
    this.#session.check()
    checkBuffer(into)
    const length = into.length
    checkRange(address, length)
    if (length === 0) return 0
    const done = this.#backend.read(address, into)
    const patches = this.#backend.patches
    if (patches !== undefined && patches.size > 0) patches.hide(address, into)
    return done
  }

  #wrote(address: number, from: Uint8Array, done: number): void {
    if (done !== from.length) throw badAddress(address + done, 'is not writable guest memory')
  }

  #writeNumber(address: number, value: number, size: 0 | 1 | 2): void {
    const word = this.#words[size]
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * word.length)) {
      throw badArgument(`${String(value)} is no unsigned number of ${word.length} bytes`)
    }
    this.#view.setUint32(0, value, true)
    this.write(address, word)
  }

  async *#readInPieces(pieceLength: number, within: PiecesOptions['within']): AsyncGenerator<MemoryPiece> {
    const buffer = new Uint8Array(pieceLength)
    const first = within?.start ?? 0
    const end = within ? within.start + within.length : Number.POSITIVE_INFINITY
    for (const range of this.regions().ranges) {
      const rangeEnd = Math.min(range.start + range.length, end)
      for (let address = Math.max(range.start, first); address < rangeEnd; address += pieceLength) {
        const bytes = buffer.subarray(0, Math.min(pieceLength, rangeEnd - address))
        const done = this.#backend.read(address, bytes)
        if (done !== bytes.length) throw badAddress(address + done, 'went away while memory was read')
        yield { address, length: bytes.length, bytes }
      }
    }
  }

  #withoutPatches(piece: MemoryPiece): MemoryPiece {
    const patches = this.#backend.patches
    if (!piece.bytes || !patches || patches.size === 0 || !patches.touches(piece.address, piece.length)) return piece
    // The piece may be a window onto the guest itself: hide our bytes in a copy.
    const bytes = piece.bytes.slice()
    patches.hide(piece.address, bytes)
    return { address: piece.address, length: piece.length, bytes }
  }
}

function readOneByOne(
  backend: MemoryBackend,
  reads: readonly ScatteredRead[],
  failed: (index: number, address: number) => void,
): void {
  for (const [index, { address, into }] of reads.entries()) {
    if (into.length === 0) continue
    const done = backend.read(address, into)
    if (done !== into.length) failed(index, address + done)
  }
}
