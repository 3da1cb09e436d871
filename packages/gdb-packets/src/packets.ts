import { MicrovmiError } from '@microvmi/core/driver'

const DOLLAR = 0x24
const PLUS = 0x2b
const MINUS = 0x2d

/** What a stub says: that it has received a packet or wants it again, or a packet of its own. */
export type FromStub = { readonly acknowledged: boolean } | { readonly data: string }

/** `$data#checksum` (GDB manual, "Overview" of the remote serial protocol). */
export function encodePacket(data: string): string {
  return `$${data}#${checksum(data)}`
}

function checksum(data: string): string {
  let sum = 0
  for (let index = 0; index < data.length; index++) sum = (sum + data.charCodeAt(index)) & 0xff
  return sum.toString(16).padStart(2, '0')
}

/** What a reader is to know of the stub. */
export interface PacketReaderOptions {
  /** What the stub is called in errors: `the VM's GDB stub`. */
  readonly stub: string
  /** Characters of a packet at most, escapes and repetitions unpacked. */
  readonly limit: number
}

/**
 * Makes packets of what arrives in pieces. A packet with a wrong checksum, or over the limit, is `PROTOCOL`: over a
 * local socket nothing is ever garbled by chance.
 */
export class PacketReader {
  readonly #stub: string
  readonly #limit: number
  #text = ''

  constructor({ stub, limit }: PacketReaderOptions) {
    this.#stub = stub
    this.#limit = limit
  }

  push(bytes: Uint8Array): void {
    this.#text += Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  }

  /** The data of the next whole packet, as Latin-1; `undefined` while there is none. Acknowledgements are skipped. */
  next(): string | undefined {
    let start = 0
    for (; start < this.#text.length; start++) {
      const character = this.#text.charCodeAt(start)
      if (character !== PLUS && character !== MINUS) break
    }
    if (start > 0) this.#text = this.#text.slice(start)
    return this.#packet()
  }

  /** The next thing that has arrived whole, acknowledgements too. */
  nextOfAll(): FromStub | undefined {
    const first = this.#text.charCodeAt(0)
    if (first === PLUS || first === MINUS) {
      this.#text = this.#text.slice(1)
      return { acknowledged: first === PLUS }
    }
    const data = this.#packet()
    return data === undefined ? undefined : { data }
  }

  #packet(): string | undefined {
    if (this.#text === '') return undefined
    if (this.#text.charCodeAt(0) !== DOLLAR) throw this.#unreadable(`'${this.#text.slice(0, 40)}' is no packet`)
    const end = this.#text.indexOf('#')
    if (end < 0 || this.#text.length < end + 3) {
      if (this.#text.length > this.#limit) throw this.#tooLong()
      return undefined
    }
    const data = this.#text.slice(1, end)
    const sum = this.#text.slice(end + 1, end + 3)
    this.#text = this.#text.slice(end + 3)
    if (sum.toLowerCase() !== checksum(data)) throw this.#unreadable('a wrong checksum')
    return /[}*]/.test(data) ? this.#unescaped(data) : data
  }

  /** `}` escapes the character that follows, xored with 0x20; `*` repeats the one before (GDB manual, "Overview"). */
  #unescaped(data: string): string {
    let result = ''
    for (let index = 0; index < data.length; index++) {
      const character = data[index] ?? ''
      const next = data.charCodeAt(index + 1)
      if (character === '}') {
        result += String.fromCharCode(next ^ 0x20)
        index += 1
      } else if (character === '*') {
        if (result === '' || !(next >= 32 && next <= 126)) throw this.#unreadable('a repetition of nothing')
        result += (result.at(-1) ?? '').repeat(next - 29)
        index += 1
        if (result.length > this.#limit) throw this.#tooLong()
      } else {
        result += character
      }
    }
    return result
  }

  #tooLong(): MicrovmiError {
    return this.#unreadable(`a packet of over ${this.#limit} bytes`)
  }

  #unreadable(why: string): MicrovmiError {
    return new MicrovmiError('PROTOCOL', `${this.#stub} sent what is no gdb protocol: ${why}`)
  }
}
