import { MicrovmiError } from '@microvmi/core/driver'
import type { CommandLine } from './debug-console.ts'
import { encodePacket, outputOf, PacketReader } from './gdb-packet.ts'
import { TcpSocket } from './tcp-socket.ts'

/** Output of one command at most. */
const ANSWER_LIMIT = 4 * 2 ** 20
/** Milliseconds after which no further vCPU says that connecting has halted it. */
const QUIET = 300

/**
 * A connection to VirtualBox's GDB stub, for what it does right (VirtualBox 7.2, src/VBox/Debugger/DBGCGdbRemoteStub.cpp):
 * commands of the debug console in `qRcmd`, breakpoints, halting and resuming. Never sent: `k`, which ends the VM, `P`,
 * upon which the stub hangs up, and `M`, which fails always.
 */
export class GdbStub implements CommandLine {
  isHalted = false
  readonly #socket: TcpSocket
  readonly #timeout: number
  readonly #packets = new PacketReader()
  #stops = 0

  /**
   * Connecting halts the VM; it goes on before this returns. Throws `VM_NOT_FOUND`, `BUSY` when the stub has a client,
   * `PROTOCOL` when it is none, or the guest is in real mode: the stub serves protected and long mode only.
   *
   * @param host an IP address
   */
  constructor(host: string, port: number, timeout: number, vcpuCount: number) {
    this.#timeout = timeout
    const deadline = performance.now() + timeout
    this.#socket = new TcpSocket(host, port, deadline)
    try {
      this.#greet(vcpuCount, deadline)
      this.resume()
    } catch (error) {
      this.#socket.close()
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      throw new MicrovmiError('BUSY', `the GDB stub at ${host}:${port} does not greet: another client holds it`)
    }
  }

  /** What the debug console says to these commands, one by one: the stub drops what it has not asked for. */
  ask(commands: readonly string[]): string {
    return commands.map((command) => this.#command(command)).join('')
  }

  /** Sets a hardware breakpoint at a virtual address. Throws `BUSY` when none is left. */
  setBreakpoint(address: bigint): void {
    const answer = this.#request(`Z1,${address.toString(16)},1`)
    if (answer === 'OK') return
    throw new MicrovmiError('BUSY', `the GDB stub sets no further hardware breakpoint (${answer.slice(0, 40)})`)
  }

  /** Takes one out. */
  clearBreakpoint(address: bigint): void {
    const answer = this.#request(`z1,${address.toString(16)},1`)
    if (answer !== 'OK') throw refused('taking a breakpoint out', answer)
  }

  /** Halts every vCPU; each that was not says so later, as a stop. */
  halt(): void {
    this.#socket.send(Uint8Array.of(3))
  }

  /** Lets all vCPUs go on; harmless when they run. The stub says nothing to it but that it has it. */
  resume(): void {
    this.#send('c', performance.now() + this.#timeout)
  }

  /** Whether a vCPU has stopped since the last call. */
  hasStopped(): boolean {
    for (let bytes = this.#socket.receiveNow(); bytes; bytes = this.#socket.receiveNow()) this.#packets.push(bytes)
    for (let said = this.#packets.next(); said; said = this.#packets.next()) {
      if ('data' in said) this.#noteStop(said.data)
    }
    const stopped = this.#stops > 0
    this.#stops = 0
    return stopped
  }

  /** Calls back on the event loop when something has arrived; keeps the process alive while told so. */
  watch(callback: () => void): void {
    this.#socket.watch(callback)
  }

  keepAlive(alive: boolean): void {
    this.#socket.keepAlive(alive)
  }

  /** The VM goes on, if it was halted. */
  close(): void {
    this.#socket.close()
  }

  #greet(vcpuCount: number, deadline: number): void {
    for (let said = 0; said < vcpuCount; said++) {
      try {
        const data = this.#next(said === 0 ? deadline : performance.now() + QUIET)
        const complaint = outputOf(data)
        if (complaint !== undefined) throw new MicrovmiError('PROTOCOL', `the GDB stub: ${complaint.trim()}`)
        if (!/^[TS]/.test(data)) throw refused('connecting', data)
      } catch (error) {
        if (said > 0 && error instanceof MicrovmiError && error.code === 'TIMEOUT') return
        throw error
      }
    }
  }

  #command(command: string): string {
    const deadline = performance.now() + this.#timeout
    // The stub drops the last character of a command.
    this.#send(`qRcmd,${Buffer.from(`${command} `, 'latin1').toString('hex')}`, deadline)
    let text = ''
    for (;;) {
      const data = this.#next(deadline)
      if (data === 'OK') return text
      const output = outputOf(data)
      if (output === undefined) this.#noteStop(data)
      else text += output
      if (text.length > ANSWER_LIMIT) throw new MicrovmiError('PROTOCOL', 'the GDB stub does not stop talking')
    }
  }

  #request(request: string): string {
    const deadline = performance.now() + this.#timeout
    this.#send(request, deadline)
    for (;;) {
      const data = this.#next(deadline)
      if (outputOf(data) !== undefined) continue
      if (!/^[TS]/.test(data)) return data
      this.#noteStop(data)
    }
  }

  /** Returns when the stub has the packet: it loses what comes in one piece with another. */
  #send(data: string, deadline: number): void {
    this.#socket.send(Buffer.from(encodePacket(data), 'latin1'))
    for (;;) {
      const said = this.#arrived(deadline)
      if ('data' in said) this.#noteStop(said.data)
      else if (said.acknowledged) return
      else throw new MicrovmiError('PROTOCOL', 'the GDB stub says that it has received a broken packet')
    }
  }

  #noteStop(data: string): void {
    if (/^[TS][0-9a-f]{2}/i.test(data)) this.#stops += 1
    else if (outputOf(data) === undefined) throw refused('no request', data)
  }

  #next(deadline: number): string {
    for (;;) {
      const said = this.#arrived(deadline)
      if ('data' in said) return said.data
    }
  }

  #arrived(deadline: number) {
    for (;;) {
      const said = this.#packets.next()
      if (said) return said
      this.#packets.push(this.#socket.receive(deadline))
    }
  }
}

function refused(what: string, answer: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the GDB stub answers '${answer.slice(0, 40)}' for ${what}`)
}
