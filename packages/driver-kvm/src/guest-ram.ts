import {
  type MemoryBackend,
  type MemoryLayout,
  type MemoryPiece,
  Patches,
  type PiecesOptions,
  type ScatteredRead,
} from '@microvmi/core/driver'
import type { HostMemory } from './host-memory.ts'
import type { MemoryLocator } from './locate-memory.ts'
import { MemoryMap, type Region } from './memory-map.ts'
import { nextData, nextHole } from './native.ts'
import type { SavedMemory } from './pmemsave.ts'
import type { Qmp } from './qmp.ts'

/** Ways to guest memory, the fastest first. */
export type MemoryWay = 'shared' | 'process_vm' | 'proc' | 'qmp'

/** Milliseconds for which the memory map that was read last is taken for the present one. */
const FRESH = 100
/** Reads between two looks at whether QEMU lives: a mapped file outlives it. */
const READS_PER_LOOK = 256
/** Below this many bytes a loop is faster than making a view for a copy. */
const SMALL = 16
const PIECE_LIMIT = 2 ** 20

/** The guest's memory, by the fastest way to each of its ranges. */
export class GuestRam implements MemoryBackend {
  /** What QEMU's breakpoints have changed. */
  readonly patches = new Patches()
  readonly #qmp: Qmp
  readonly #locator: MemoryLocator
  readonly #host: HostMemory | undefined
  readonly #saved: SavedMemory
  readonly #throwGone: () => never
  #map: MemoryMap
  #readAt: number
  #sinceLook = 0
  #hostAddresses = new Float64Array(512)

  /** @param host QEMU's memory, where this user may read it; it is this object's from now on */
  constructor(
    locator: MemoryLocator,
    host: HostMemory | undefined,
    saved: SavedMemory,
    qmp: Qmp,
    throwGone: () => never,
  ) {
    this.#qmp = qmp
    this.#saved = saved
    this.#throwGone = throwGone
    this.#locator = locator
    this.#host = host
    this.#map = new MemoryMap(locator.locate() ?? [], 0)
    this.#readAt = performance.now()
  }

  /** The way to the largest part of RAM. */
  get way(): MemoryWay {
    let largest: Region | undefined
    for (const region of this.#map.regions) {
      if (!largest || region.end - region.start > largest.end - largest.start) largest = region
    }
    return largest ? this.#wayTo(largest) : 'qmp'
  }

  /** Whether all RAM can be written. */
  get isWritable(): boolean {
    return this.#map.regions.every((region) => region.kind === 'rom' || this.#isWritable(region))
  }

  /** Whether all RAM can be shown in windows. */
  get isMappable(): boolean {
    return this.#map.regions.every((region) => region.kind === 'rom' || region.file?.shared.writable === true)
  }

  read(address: number, into: Uint8Array): number {
    if (++this.#sinceLook >= READS_PER_LOOK) this.#look()
    const region = this.#map.find(address)
    if (region === undefined) return this.#refresh() ? this.read(address, into) : 0
    const { length } = into
    if (address + length <= region.end) {
      this.#readRegion(region, address, into)
      return length
    }
    const first = region.end - address
    this.#readRegion(region, address, into.subarray(0, first))
    return first + this.read(region.end, into.subarray(first))
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    const host = this.#host
    if (reads.length > this.#hostAddresses.length) this.#hostAddresses = new Float64Array(reads.length)
    const addresses = this.#hostAddresses
    let scattered = 0
    for (let index = 0; index < reads.length; index++) {
      const read = reads[index]
      addresses[index] = 0
      if (read === undefined || read.into.length === 0) continue
      const region = this.#map.find(read.address)
      const fits = region !== undefined && read.address + read.into.length <= region.end
      if (fits && host && !region.file && region.hostAddress !== undefined) {
        addresses[index] = region.hostAddress + (read.address - region.start)
        scattered += 1
      } else {
        const done = this.read(read.address, read.into)
        if (done !== read.into.length) failed(index, read.address + done)
      }
    }
    if (host && scattered > 0) host.readMany(reads, addresses)
  }

  write(address: number, from: Uint8Array): number {
    let extent = this.#map.extent(address, from.length, true)
    if (extent !== from.length && this.#refresh()) extent = this.#map.extent(address, from.length, true)
    if (extent !== from.length) return extent
    this.#look()
    for (let done = 0; done < from.length; ) {
      const region = this.#map.find(address + done)
      if (region === undefined) return done
      const length = Math.min(from.length - done, region.end - (address + done))
      this.#writeRegion(region, address + done, from.subarray(done, done + length))
      done += length
    }
    return from.length
  }

  layout(): MemoryLayout {
    this.#look()
    this.#refresh()
    return this.#map.layout
  }

  map(address: number, length: number): Uint8Array | number {
    this.#look()
    const region = this.#map.find(address)
    if (!region?.file?.shared.writable) return 0
    const from = address - region.start
    const usable = Math.min(length, region.end - address)
    return usable === length ? region.file.bytes.subarray(from, from + length) : usable
  }

  async *pieces({
    within,
    pieceLength,
  }: PiecesOptions & { readonly pieceLength: number }): AsyncGenerator<MemoryPiece> {
    this.layout()
    const first = within?.start ?? 0
    const limit = within ? within.start + within.length : Number.POSITIVE_INFINITY
    for (const region of this.#map.regions) {
      const start = Math.max(region.start, first)
      const end = Math.min(region.end, limit)
      if (start >= end) continue
      if (region.file) yield* this.#sharedPieces(region.file, region.start, start, end, pieceLength)
      else yield* this.#copiedPieces(region, start, end, pieceLength)
    }
  }

  close(): void {
    this.#locator.close()
    this.#host?.close()
  }

  /** Windows onto a shared file; its holes are zeros that nobody needs to read (reading them would fill them). */
  *#sharedPieces(
    { shared, offset, bytes: all }: NonNullable<Region['file']>,
    regionStart: number,
    start: number,
    end: number,
    pieceLength: number,
  ): Generator<MemoryPiece> {
    const shift = offset - regionStart
    for (let at = start; at < end; ) {
      const data = nextData(shared.fd, at + shift, end + shift) - shift
      if (data > at) {
        const length = Math.min(pieceLength, data - at)
        yield { address: at, length, bytes: undefined }
        at += length
        continue
      }
      const hole = nextHole(shared.fd, at + shift, end + shift) - shift
      while (at < hole) {
        const length = Math.min(pieceLength, hole - at)
        const bytes = all.subarray(at - regionStart, at - regionStart + length)
        yield { address: at, length, bytes }
        this.#look()
        at += length
      }
    }
  }

  *#copiedPieces(region: Region, start: number, end: number, pieceLength: number): Generator<MemoryPiece> {
    const step = Math.min(pieceLength, PIECE_LIMIT)
    const buffer = this.#host && region.hostAddress !== undefined ? undefined : new Uint8Array(step)
    for (let at = start; at < end; at += step) {
      const length = Math.min(step, end - at)
      if (buffer) this.#readRegion(region, at, buffer.subarray(0, length))
      const bytes =
        buffer?.subarray(0, length) ?? this.#host?.piece((region.hostAddress ?? 0) + (at - region.start), length)
      yield { address: at, length, bytes }
    }
  }

  #readRegion(region: Region, address: number, into: Uint8Array): void {
    if (region.file !== undefined) {
      copyOut(region.file.bytes, address - region.start, into)
    } else if (this.#host !== undefined && region.hostAddress !== undefined) {
      this.#host.read(region.hostAddress + (address - region.start), into)
    } else {
      this.#saved.read(address, into)
    }
  }

  #writeRegion(region: Region, address: number, from: Uint8Array): void {
    const { file, hostAddress, start } = region
    if (file?.shared.writable) {
      file.bytes.set(from, address - start)
    } else if (this.#host && hostAddress !== undefined) {
      this.#host.write(hostAddress + (address - start), from)
    }
  }

  #isWritable({ file, hostAddress }: Region): boolean {
    return file?.shared.writable === true || (this.#host !== undefined && hostAddress !== undefined)
  }

  #wayTo({ file, hostAddress }: Region): MemoryWay {
    if (file) return 'shared'
    return this.#host && hostAddress !== undefined ? this.#host.way : 'qmp'
  }

  #look(): void {
    this.#sinceLook = 0
    if (this.#qmp.hasEnded || this.#host?.hasEnded) this.#throwGone()
  }

  /** Reads the memory map again unless that was done just now; whether it has changed. */
  #refresh(): boolean {
    const now = performance.now()
    if (now - this.#readAt < FRESH) return false
    const regions = this.#locator.locate()
    this.#readAt = performance.now()
    if (!regions) return false
    this.#map = new MemoryMap(regions, this.#map.layout.generation + 1)
    return true
  }
}

function copyOut(bytes: Uint8Array, from: number, into: Uint8Array): void {
  const { length } = into
  if (length <= SMALL) {
    for (let index = 0; index < length; index++) into[index] = bytes[from + index] ?? 0
  } else {
    // A plain view costs half of what subarray() does.
    into.set(new Uint8Array(bytes.buffer, bytes.byteOffset + from, length))
  }
}
