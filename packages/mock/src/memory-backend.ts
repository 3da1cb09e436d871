import {
  type Access,
  badAddress,
  badArgument,
  type MemoryBackend,
  type MemoryLayout,
  type MemoryPiece,
  type PiecesOptions,
} from '@microvmi/core/driver'
import type { Host } from './host.ts'

const PAGE = 4096

/** `memory.*`: straight access to the guest's RAM. */
export class MockMemory implements Required<Omit<MemoryBackend, 'readUint64' | 'readMany' | 'unmap'>> {
  readonly #host: Host
  /** Pages that this session gave the guest. */
  readonly #allocated = new Set<number>()
  /** Frames whose rights this session has changed, by view. */
  readonly #restricted = new Map<number, Set<number>>()

  constructor(host: Host) {
    this.#host = host
  }

  get patches() {
    return this.#host.machine.breakpoints.patches
  }

  read(address: number, into: Uint8Array): number {
    this.#host.exchange()
    return this.#host.machine.memory.read(address, into)
  }

  write(address: number, from: Uint8Array): number {
    this.#host.exchange()
    const done = this.#host.machine.memory.write(address, from)
    // What was written may be page tables.
    this.#host.machine.flush()
    return done
  }

  layout(): MemoryLayout {
    this.#host.exchange()
    const { generation, ranges } = this.#host.machine.memory
    return { generation, ranges }
  }

  map(address: number, length: number): Uint8Array | number {
    this.#host.exchange()
    return this.#host.machine.memory.window(address, length)
  }

  async *pieces(options: { readonly pieceLength: number } & PiecesOptions): AsyncGenerator<MemoryPiece> {
    const { pieceLength, within } = options
    const first = within?.start ?? 0
    const end = within ? within.start + within.length : Number.POSITIVE_INFINITY
    for (const range of this.layout().ranges) {
      const rangeEnd = Math.min(range.start + range.length, end)
      for (let address = Math.max(range.start, first); address < rangeEnd; address += pieceLength) {
        const length = Math.min(pieceLength, rangeEnd - address)
        const bytes = this.map(address, length)
        if (typeof bytes === 'number') throw badAddress(address + bytes, 'went away while memory was read')
        yield { address, length, bytes: isZero(bytes) ? undefined : bytes }
      }
    }
  }

  setAccess(address: number, length: number, access: Access, view = 0): void {
    this.#host.exchange()
    this.#host.machine.views.setAccess(address, length, access, view)
    const frames = this.#restricted.get(view) ?? new Set()
    this.#restricted.set(view, frames)
    const last = Math.ceil((address + length) / PAGE)
    for (let frame = Math.floor(address / PAGE); frame < last; frame++) frames.add(frame)
  }

  getAccess(address: number, view: number | undefined): Access {
    this.#host.exchange()
    return this.#host.machine.views.getAccess(address, view)
  }

  allocate(): number {
    this.#host.exchange()
    const address = this.#host.machine.memory.add()
    this.#allocated.add(address)
    this.#host.machine.flush()
    return address
  }

  free(address: number): void {
    this.#host.exchange()
    if (!this.#allocated.delete(address)) {
      throw badArgument(`allocate() has not given a page at 0x${address.toString(16)}, or it was freed before`)
    }
    this.#take(address)
  }

  /** As the guest was before this session. */
  release(): void {
    const { machine } = this.#host
    for (const [view, frames] of this.#restricted) {
      if (!machine.views.has(view)) continue
      for (const frame of frames) {
        if (machine.memory.page(frame)) machine.views.setAccess(frame * PAGE, PAGE, 'rwx', view)
      }
    }
    this.#restricted.clear()
    for (const address of this.#allocated) this.#take(address)
    this.#allocated.clear()
  }

  #take(address: number): void {
    const { memory, views } = this.#host.machine
    views.forget(address / PAGE)
    memory.remove(address)
  }
}

/** Whether all bytes are zero: eight at a time, but for the ends. */
function isZero(bytes: Uint8Array): boolean {
  const aligned = -bytes.byteOffset & 7
  const count = Math.floor((bytes.length - aligned) / 8)
  if (count < 1) return bytes.every((byte) => byte === 0)
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset + aligned, count)
  // By index: an iterator takes ten times as long.
  for (let index = 0; index < count; index++) if (words[index] !== 0n) return false
  const ends = [bytes.subarray(0, aligned), bytes.subarray(aligned + count * 8)]
  return ends.every((end) => end.every((byte) => byte === 0))
}
