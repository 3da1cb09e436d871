import { MicrovmiError } from '@microvmi/core/driver'

/** A line of QMP's is an `info mtree` of some hundred KiB at most; what is longer comes from something else. */
export const LINE_LIMIT = 16 * 2 ** 20

const NEWLINE = 10

/** Makes lines of what arrives in pieces, within a bound. */
export class LineBuffer {
  #bytes = new Uint8Array(65_536)
  #start = 0
  #end = 0
  /** From here on no newline was looked for yet. */
  #searched = 0

  /** Adds what has arrived. Throws `PROTOCOL` when a line grows over the limit. */
  push(bytes: Uint8Array): void {
    if (this.#end + bytes.length > this.#bytes.length) this.#makeRoom(bytes.length)
    this.#bytes.set(bytes, this.#end)
    this.#end += bytes.length
  }

  /** The next whole line without its newline, valid until the next `push`; `undefined` while there is none. */
  next(): Uint8Array | undefined {
    const newline = this.#bytes.subarray(0, this.#end).indexOf(NEWLINE, this.#searched)
    if (newline < 0) {
      this.#searched = this.#end
      return undefined
    }
    const line = this.#bytes.subarray(this.#start, newline)
    this.#start = newline + 1
    this.#searched = this.#start
    return line
  }

  #makeRoom(length: number): void {
    const held = this.#end - this.#start
    if (held + length > LINE_LIMIT) {
      throw new MicrovmiError('PROTOCOL', `a line of over ${LINE_LIMIT} bytes: this is no QMP monitor`)
    }
    const size = Math.max(this.#bytes.length, 2 ** Math.ceil(Math.log2(held + length)))
    const bytes = size > this.#bytes.length ? new Uint8Array(size) : this.#bytes
    bytes.set(this.#bytes.subarray(this.#start, this.#end))
    this.#bytes = bytes
    this.#searched -= this.#start
    this.#start = 0
    this.#end = held
  }
}
