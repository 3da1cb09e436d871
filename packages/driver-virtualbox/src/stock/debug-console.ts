import { MicrovmiError } from '@microvmi/core/driver'
import { MOST_LINE, markerOf, PROMPT, padded, WELCOME } from './console-text.ts'
import { TcpSocket } from './tcp-socket.ts'

/** An answer is some hundred KiB at most: see the batches of ConsoleMemory. */
const ANSWER_LIMIT = 4 * 2 ** 20

/** What takes commands of the debug console: itself, or the GDB stub. */
export interface CommandLine {
  /** What is said to these commands; at most `MOST_LINE` characters in all, with one between two of them. */
  ask(commands: readonly string[]): string
  close(): void
}

/** A connection to VirtualBox's own debug console. It serves one client at a time. */
export class DebugConsole implements CommandLine {
  readonly #socket: TcpSocket
  readonly #timeout: number
  readonly #decoder = new TextDecoder('latin1')
  #marker = 0
  /** Bytes so far. */
  #sent = 0

  /** Throws `VM_NOT_FOUND` when nothing listens, `BUSY` when it has a client, `PROTOCOL` when it is something else. */
  constructor(host: string, port: number, timeout: number) {
    this.#timeout = timeout
    const deadline = performance.now() + timeout
    this.#socket = new TcpSocket(host, port, deadline)
    try {
      // A GDB stub greets with a packet: `$…`.
      const greeting = this.#until([PROMPT, '$'], deadline)
      if (!greeting.includes(WELCOME)) {
        throw new MicrovmiError('PROTOCOL', `${host}:${port} is no debug console: it says '${greeting.slice(0, 40)}'`)
      }
    } catch (error) {
      this.#socket.close()
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      throw new MicrovmiError('BUSY', `the debug console at ${host}:${port} does not greet: another client holds it`)
    }
  }

  ask(commands: readonly string[]): string {
    const previous = markerOf(this.#marker)
    const marker = markerOf(++this.#marker)
    const line = padded(`${commands.join(';')}; echo "${marker}"\n`, this.#sent)
    if (line.length > MOST_LINE + 100) throw new RangeError(`a line of ${line.length} characters for the console`)
    const deadline = performance.now() + this.#timeout
    this.#sent += line.length
    this.#socket.send(new TextEncoder().encode(line))
    // The prompt behind it is awaited too: what is sent before it may be lost.
    const text = this.#until([`${marker}\r\n${PROMPT}`, `${marker}\n${PROMPT}`], deadline)
    // What comes before the previous marker is the answer to a line that was given up.
    const given = text.lastIndexOf(previous)
    return text.slice(given < 0 ? 0 : given + previous.length, text.lastIndexOf(marker))
  }

  close(): void {
    this.#socket.close()
  }

  /** All that arrives until one of these texts has. */
  #until(ends: readonly string[], deadline: number): string {
    let text = ''
    for (;;) {
      const searched = Math.max(0, text.length - MOST_LINE)
      text += this.#decoder.decode(this.#socket.receive(deadline), { stream: true })
      if (ends.some((end) => text.includes(end, searched))) return text
      if (text.length > ANSWER_LIMIT) throw new MicrovmiError('PROTOCOL', 'the debug console does not stop talking')
    }
  }
}
