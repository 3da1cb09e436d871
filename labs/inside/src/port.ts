import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Readable } from 'node:stream'

const END_OF_TRANSMISSION = '\x04'

/** A virtio serial port or console of the machine's, as a socket that the emulator connects to. */
export class Port implements Disposable {
  /** When the emulator has connected and gone. */
  readonly ended: Promise<void>
  readonly #server = createServer()

  /**
   * @param path the socket's
   * @param take is given what the machine writes, as it comes
   * @param input what the machine is to read, if anything; at its end, a terminal's Ctrl-D
   */
  constructor(path: string, take: (bytes: Buffer) => void, input?: Readable) {
    this.ended = new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.once('connection', (socket) => {
        socket.on('data', take)
        input?.on('data', (bytes) => socket.write(bytes))
        input?.once('end', () => socket.write(END_OF_TRANSMISSION))
        socket.once('error', reject)
        socket.once('close', () => resolve())
      })
    })
    // Nobody may be waiting for it when it fails: then the machine's start has failed too, which is told.
    this.ended.catch(() => undefined)
    this.#server.listen(path)
  }

  async listening(): Promise<void> {
    if (!this.#server.listening) await once(this.#server, 'listening')
  }

  [Symbol.dispose](): void {
    this.#server.close()
  }
}

/** Cuts bytes into lines: calls back for each that is whole. */
export function lines(take: (line: string) => void): (bytes: Buffer) => void {
  const decoder = new TextDecoder()
  let rest = ''
  return (bytes) => {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n')
    rest = parts.pop() ?? ''
    for (const part of parts) take(part)
  }
}
