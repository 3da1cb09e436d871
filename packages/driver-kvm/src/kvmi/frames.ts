import { MicrovmiError } from '@microvmi/core/driver'
import { HEADER_LENGTH, MESSAGE_LIMIT } from './layout.ts'

const CAPACITY = 65_536

/** A message that has arrived: where its body is in the reader's buffer, until the reader's next `room`. */
export interface Frame {
  id: number
  seq: number
  /** Offset of the body in `Frames.view`. */
  start: number
  /** Bytes of the body. */
  length: number
}

/** Cuts what arrives into messages, in one buffer of a fixed size. */
export class Frames {
  readonly #bytes = Buffer.alloc(CAPACITY)
  readonly #frame: Frame = { id: 0, seq: 0, start: 0, length: 0 }
  readonly view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, CAPACITY)
  #start = 0
  #end = 0

  /** The buffer that frames are in. */
  get bytes(): Buffer {
    return this.#bytes
  }

  /** Where to put what arrives next; then call `added`. All frames so far are void. */
  room(): Uint8Array {
    if (this.#start === this.#end) {
      this.#start = 0
      this.#end = 0
    } else if (CAPACITY - this.#start < HEADER_LENGTH + MESSAGE_LIMIT || this.#end === CAPACITY) {
      this.#bytes.copyWithin(0, this.#start, this.#end)
      this.#end -= this.#start
      this.#start = 0
    }
    return this.#bytes.subarray(this.#end)
  }

  added(length: number): void {
    this.#end += length
  }

  /** The next whole message, the same object each time; `undefined` while there is none. Throws `PROTOCOL`. */
  next(): Frame | undefined {
    const held = this.#end - this.#start
    if (held < HEADER_LENGTH) return undefined
    const length = this.view.getUint16(this.#start + 2, true)
    if (length > MESSAGE_LIMIT) {
      throw new MicrovmiError('PROTOCOL', `a KVMi message of ${length} bytes: none has more than ${MESSAGE_LIMIT}`)
    }
    if (held < HEADER_LENGTH + length) return undefined
    const frame = this.#frame
    frame.id = this.view.getUint16(this.#start, true)
    frame.seq = this.view.getUint32(this.#start + 4, true)
    frame.start = this.#start + HEADER_LENGTH
    frame.length = length
    this.#start += HEADER_LENGTH + length
    return frame
  }
}
