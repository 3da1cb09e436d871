import { MicrovmiError } from '@microvmi/core/driver'
import { type FromStub, PacketReader } from '@microvmi/gdb-packets'

/** The console's longest answer to one command is a `dq` of 2048 words: 50 KiB, and twice that in hexadecimal digits. */
const PACKET_LIMIT = 2 ** 20

/**
 * Packets of VirtualBox's stub. It puts a NUL behind data that it has made from binary (DBGF's "cbReply" counts it): it
 * is taken off. Throws `PROTOCOL` for anything that is no packet.
 */
export class StubPackets {
  readonly #reader = new PacketReader({ stub: "the VM's GDB stub", limit: PACKET_LIMIT })

  push(bytes: Uint8Array): void {
    this.#reader.push(bytes)
  }

  /** The next thing that has arrived whole. */
  next(): FromStub | undefined {
    const said = this.#reader.nextOfAll()
    return said && 'data' in said && said.data.endsWith('\0') ? { data: said.data.slice(0, -1) } : said
  }
}

/** The text of an `O` packet, or `undefined` for another packet. */
export function outputOf(data: string): string | undefined {
  if (!data.startsWith('O') || data === 'OK') return undefined
  if (!/^O(?:[0-9a-f]{2})*$/i.test(data))
    throw new MicrovmiError('PROTOCOL', `the VM's GDB stub sent no output: '${data.slice(0, 40)}'`)
  return Buffer.from(data.slice(1), 'hex').toString('latin1')
}
