import { HEADER_LENGTH, MESSAGE_LIMIT } from './layout.ts'

/** A message of ours under construction, in a buffer that is used again for the next one. */
export class Message {
  readonly #bytes = Buffer.alloc(HEADER_LENGTH + MESSAGE_LIMIT)
  /** The whole buffer; the body begins at `HEADER_LENGTH`. */
  readonly view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length)
  #length = 0

  /** What is to be sent, valid until the next `begin`. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** Bytes of the whole message. */
  get length(): number {
    return this.#length
  }

  /** Puts the message into another buffer. */
  copyTo(target: Uint8Array, offset: number): void {
    this.#bytes.copy(target, offset, 0, this.#length)
  }

  get id(): number {
    return this.view.getUint16(0, true)
  }

  /** Starts a message with a body of `size` zeros. */
  begin(id: number, size: number): void {
    this.#length = HEADER_LENGTH + size
    this.#bytes.fill(0, 0, this.#length)
    this.view.setUint16(0, id, true)
    this.view.setUint16(2, size, true)
  }

  set seq(seq: number) {
    this.view.setUint32(4, seq, true)
  }

  /** Offsets of fields count from the start of the body. */
  setUint8(offset: number, value: number): void {
    this.view.setUint8(HEADER_LENGTH + offset, value)
  }

  setUint16(offset: number, value: number): void {
    this.view.setUint16(HEADER_LENGTH + offset, value, true)
  }

  setUint32(offset: number, value: number): void {
    this.view.setUint32(HEADER_LENGTH + offset, value, true)
  }

  /** A whole number of up to 53 bits in 64: no bigint is made. */
  setWord(offset: number, value: number): void {
    this.view.setUint32(HEADER_LENGTH + offset, value % 2 ** 32, true)
    this.view.setUint32(HEADER_LENGTH + offset + 4, Math.floor(value / 2 ** 32), true)
  }

  setBigUint64(offset: number, value: bigint): void {
    this.view.setBigUint64(HEADER_LENGTH + offset, value, true)
  }

  setBytes(offset: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, HEADER_LENGTH + offset)
  }
}
