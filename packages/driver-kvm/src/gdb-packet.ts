import { MicrovmiError } from '@microvmi/core/driver'

/** QEMU's packets have at most 4 KiB (gdbstub/gdbstub.c, MAX_PACKET_LENGTH), escapes and run lengths unpacked far less. */
export const PACKET_LIMIT = 65_536

const DOLLAR = 0x24
const PLUS = 0x2b
const MINUS = 0x2d

/** `$data#checksum` (GDB manual, "Overview" of the remote serial protocol). */
export function encodePacket(data: string): string {
  return `$${data}#${checksum(data)}`
}

function checksum(data: string): string {
  let sum = 0
  for (let index = 0; index < data.length; index++) sum = (sum + data.charCodeAt(index)) & 0xff
  return sum.toString(16).padStart(2, '0')
}

/**
 * Makes packets of what arrives in pieces. Acknowledgements are skipped; a packet with a wrong checksum, or over the
 * limit, is `PROTOCOL`: over a local socket nothing is ever garbled by chance.
 */
export class PacketReader {
  #text = ''

  push(bytes: Uint8Array): void {
    this.#text += Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  }

  /** The data of the next whole packet; `undefined` while there is none. */
  next(): string | undefined {
    let start = 0
    for (; start < this.#text.length; start++) {
      const character = this.#text.charCodeAt(start)
      if (character !== PLUS && character !== MINUS) break
    }
    if (start > 0) this.#text = this.#text.slice(start)
    if (this.#text === '') return undefined
    if (this.#text.charCodeAt(0) !== DOLLAR) throw unreadable(`'${this.#text.slice(0, 40)}' is no packet`)
    const end = this.#text.indexOf('#')
    if (end < 0 || this.#text.length < end + 3) {
      if (this.#text.length > PACKET_LIMIT) throw unreadable(`a packet of over ${PACKET_LIMIT} bytes`)
      return undefined
    }
    const data = this.#text.slice(1, end)
    const sum = this.#text.slice(end + 1, end + 3)
    this.#text = this.#text.slice(end + 3)
    if (sum.toLowerCase() !== checksum(data)) throw unreadable('a wrong checksum')
    return unescaped(data)
  }
}

/** `}` escapes the character that follows, xored with 0x20; `*` repeats the one before (GDB manual, "Overview"). */
function unescaped(data: string): string {
  if (!/[}*]/.test(data)) return data
  let result = ''
  for (let index = 0; index < data.length; index++) {
    const character = data[index] ?? ''
    const next = data.charCodeAt(index + 1)
    if (character === '}') {
      result += String.fromCharCode(next ^ 0x20)
      index += 1
    } else if (character === '*') {
      if (result === '' || !(next >= 32 && next <= 126)) throw unreadable('a repetition of nothing')
      result += (result.at(-1) ?? '').repeat(next - 29)
      index += 1
      if (result.length > PACKET_LIMIT) throw unreadable(`a packet of over ${PACKET_LIMIT} bytes`)
    } else {
      result += character
    }
  }
  return result
}

function unreadable(why: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the gdbstub sent what is no gdb protocol: ${why}`)
}
