import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { type DumpedRange, rangeOf, rangesInDump } from './core-dump.ts'

/** A core dump that is open. */
export class DumpFile {
  readonly #fd: number
  readonly #ranges: readonly DumpedRange[]
  readonly #remove: () => void

  /**
   * Throws `PROTOCOL` for what is no dump.
   *
   * @param remove takes the file's name away: at once, so that it goes with this process however that ends; on Windows,
   * which keeps the name of a file that is open, when it is closed
   */
  constructor(file: string, remove: () => void) {
    this.#remove = remove
    this.#fd = openSync(file, 'r')
    try {
      if (process.platform !== 'win32') remove()
      const readAt = (offset: number, length: number) => {
        const bytes = new Uint8Array(length)
        return bytes.subarray(0, readSync(this.#fd, bytes, 0, length, offset))
      }
      this.#ranges = rangesInDump(readAt, fstatSync(this.#fd).size)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  /** Fills `into` and returns its length, or the offset of what is not in the dump. */
  read(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const range = rangeOf(this.#ranges, address + done)
      if (!range) return done
      const at = address + done - range.address
      const length = Math.min(into.length - done, range.length - at)
      const read = readSync(this.#fd, into, done, length, range.offset + at)
      if (read === 0) return done
      done += read
    }
    return into.length
  }

  close(): void {
    closeSync(this.#fd)
    this.#remove()
  }
}
