import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** A gdb remote client with nothing of the driver's in it: to measure what QEMU's gdbstub does (GDB manual, appendix E). */
export class GdbClient {
  readonly #socket: Socket
  readonly #packets: string[] = []
  #rest = ''
  #wake: (() => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    // QEMU may go while a client is there: then no packet comes, which is what the caller sees.
    socket.on('error', () => socket.destroy())
    socket.on('data', (bytes) => {
      this.#rest += bytes.toString('latin1')
      for (;;) {
        const [whole, content = ''] = /^[^$]*\$([^#]*)#../.exec(this.#rest) ?? []
        if (whole === undefined) break
        this.#rest = this.#rest.slice(whole.length)
        this.#packets.push(content)
      }
      this.#wake?.()
    })
  }

  static async connect(path: string): Promise<GdbClient> {
    const socket = connect(path)
    await once(socket, 'connect')
    return new GdbClient(socket)
  }

  /** Sends a packet and returns the reply; `undefined` when none came in time. */
  async ask(packet: string, timeout = 5000): Promise<string | undefined> {
    this.send(packet)
    return this.next(timeout)
  }

  send(packet: string): void {
    this.#socket.write(framed(packet), 'latin1')
  }

  /** `+` and the interrupt byte, in one write. */
  interrupt(): void {
    this.#socket.write('+\x03', 'latin1')
  }

  /** The next packet that has not been taken; `undefined` when none came in time. */
  async next(timeout = 5000): Promise<string | undefined> {
    const end = performance.now() + timeout
    while (this.#packets.length === 0) {
      const left = end - performance.now()
      if (left <= 0) return undefined
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
    return this.#packets.shift()
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** A packet with its checksum: the sum of its bytes modulo 256, in hexadecimal. */
export function framed(packet: string): string {
  let sum = 0
  for (const byte of Buffer.from(packet, 'latin1')) sum = (sum + byte) & 0xff
  return `$${packet}#${sum.toString(16).padStart(2, '0')}`
}

/** A register of QEMU's `g` reply, little endian (its order is in gdb-xml/i386-64bit.xml). */
export function registerIn(reply: string, byte: number, length = 8): bigint {
  return Buffer.from(reply.slice(byte * 2, (byte + length) * 2), 'hex').readBigUInt64LE()
}

/** The `rip` and `cr3` of a `g` reply, where QEMU 7.2 has them. */
export const RIP = 128
export const CR3 = 204
