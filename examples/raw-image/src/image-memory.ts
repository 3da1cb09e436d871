import type { MemoryBackend, MemoryLayout, MemoryRange } from '@microvmi/core/driver'
import type { ImageFile } from './image-file.ts'
import { extent } from './regions.ts'

/** An image as guest memory: offsets in the file are guest-physical addresses. */
export class ImageMemory implements MemoryBackend {
  readonly #file: ImageFile
  readonly #layout: MemoryLayout

  constructor(file: ImageFile, ranges: readonly MemoryRange[]) {
    this.#file = file
    this.#layout = { generation: 0, ranges }
  }

  read(address: number, into: Uint8Array): number {
    const usable = extent(this.#layout.ranges, address, into.length)
    // A range that is not all memory is not read: core takes nothing but the offset from it.
    if (usable === into.length) this.#file.read(address, into)
    else this.#file.check()
    return usable
  }

  write(address: number, from: Uint8Array): number {
    const usable = extent(this.#layout.ranges, address, from.length)
    // Checked always: a write behind the end of a file that was cut short would make it grow.
    this.#file.check()
    if (usable === from.length) this.#file.write(address, from)
    return usable
  }

  layout(): MemoryLayout {
    this.#file.check()
    return this.#layout
  }
}
