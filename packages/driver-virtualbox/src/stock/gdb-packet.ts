import { MicrovmiError } from '@microvmi/core/driver'

/** The console's longest answer to one command is a `dq` of 2048 words: 50 KiB, and twice that in hexadecimal digits. */
const PACKET_LIMIT = 2 ** 20

/** What the stub says: that it has received a packet, or a packet of its own. */
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

/**
 * Makes packets of what arrives in pieces. VirtualBox puts a NUL behind data that it has made from binary (DBGF's
 * "cbReply" counts it): it is taken off. Throws `PROTOCOL` for anything that is no packet.
 */
export class PacketReader {
  #text = ''

  push(bytes: Uint8Array): void {
    this.#text += Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  }

  /** The next thing that has arrived whole. */
  next(): FromStub | undefined {
    const [first] = this.#text
    if (first === undefined) return undefined
    if (first === '+' || first === '-') {
      this.#text = this.#text.slice(1)
      return { acknowledged: first === '+' }
    }
    if (first !== '$') throw unreadable(`'${this.#text.slice(0, 40)}' is no packet`)
    const end = this.#text.indexOf('#')
    if (end < 0 || this.#text.length < end + 3) {
      if (this.#text.length > PACKET_LIMIT) throw unreadable(`a packet of over ${PACKET_LIMIT} bytes`)
      return undefined
    }
    const data = this.#text.slice(1, end)
    const sum = this.#text.slice(end + 1, end + 3)
    this.#text = this.#text.slice(end + 3)
    if (sum.toLowerCase() !== checksum(data)) throw unreadable('a wrong checksum')
    return { data: data.endsWith('\0') ? data.slice(0, -1) : data }
  }
}

/** The text of an `O` packet, or `undefined` for another packet. */
export function outputOf(data: string): string | undefined {
  if (!data.startsWith('O') || data === 'OK') return undefined
  if (!/^O(?:[0-9a-f]{2})*$/i.test(data)) throw unreadable(`'${data.slice(0, 40)}' for output`)
  return Buffer.from(data.slice(1), 'hex').toString('latin1')
}

function unreadable(why: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the VM's GDB stub sent what is no GDB protocol: ${why}`)
}
