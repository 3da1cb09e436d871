import { MicrovmiError } from '@microvmi/core/driver'
import { encodePacket } from '@microvmi/gdb-packets'
import { breakpointsIn, complaintIn } from './console-text.ts'
import type { CommandLine } from './debug-console.ts'
import { outputOf, StubPackets } from './stub-packets.ts'
import { TcpSocket } from './tcp-socket.ts'

/** Output of one command at most. */
const ANSWER_LIMIT = 4 * 2 ** 20
/** Milliseconds after which no further vCPU says that it has halted: the stub looks every 32. */
const QUIET = 300
/** What interrupts a target (GDB manual, "Interrupts"). */
const INTERRUPT = 3

/** For whom the VM stands still. */
export type Holder = 'pause' | 'event' | 'write'

/**
 * A connection to VirtualBox's GDB stub, for what it does right (VirtualBox 7.2, src/VBox/Debugger/DBGCGdbRemoteStub.cpp):
 * commands of the debug console in `qRcmd`, breakpoints, halting and resuming. Never sent: `k`, which ends the VM, `P`,
 * upon which the stub hangs up, and `M`, which fails always.
 */
export class GdbStub implements CommandLine {
  readonly #socket: TcpSocket
  readonly #timeout: number
  readonly #vcpuCount: number
  readonly #packets = new StubPackets()
  /** How often it was said since the VM went on that a vCPU has stopped. */
  #stops = 0
  readonly #holders = new Set<Holder>()
  /** How many breakpoints of a session that was killed were taken out. */
  readonly leftovers: number
  /** Called with all vCPUs halted, when the VM is about to go on. */
  beforeResuming = (): void => {}
  /** Called when one of several has let the VM go. */
  letGoByOne = (): void => {}

  /**
   * Connecting halts the VM; it goes on before this returns. Throws `VM_NOT_FOUND`, `BUSY` when the stub has a client,
   * `PROTOCOL` when it is none, or the guest is in real mode: the stub serves protected and long mode only.
   *
   * @param host an IP address
   */
  constructor(host: string, port: number, timeout: number, vcpuCount: number) {
    this.#timeout = timeout
    this.#vcpuCount = vcpuCount
    const deadline = performance.now() + timeout
    this.#socket = new TcpSocket(host, port, deadline)
    try {
      this.#greet(deadline)
      this.leftovers = this.#takeOutLeftovers()
      this.#resume()
    } catch (error) {
      this.#socket.close()
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      throw new MicrovmiError('BUSY', `the GDB stub at ${host}:${port} does not greet: another client holds it`)
    }
  }

  isHeldBy(holder: Holder): boolean {
    return this.#holders.has(holder)
  }

  /** Whether somebody holds the VM. */
  get isHalted(): boolean {
    return this.#holders.size > 0
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

  /** Halts every vCPU, and returns when those that ran have said that they stand. */
  hold(holder: Holder): void {
    try {
      if (this.#stops < this.#vcpuCount) {
        // Alone in its piece: the stub overlooks it beside a packet.
        this.#socket.send(Uint8Array.of(INTERRUPT))
        this.#awaitStops(performance.now() + this.#timeout)
      }
      this.#holders.add(holder)
    } catch (error) {
      // Who knows what stands: the VM goes on when its debugger has gone.
      this.close()
      throw error
    }
  }

  /** The VM goes on when nobody else holds it. */
  letGo(holder: Holder): void {
    if (!this.#holders.delete(holder)) return
    if (this.isHalted) {
      this.letGoByOne()
      return
    }
    try {
      this.beforeResuming()
    } finally {
      this.#resume()
    }
  }

  /** Has one vCPU of a VM that is held execute one instruction. */
  step(vcpu: number): void {
    const deadline = performance.now() + this.#timeout
    const answer = this.#request(`Hg${(vcpu + 1).toString(16)}`)
    if (answer !== 'OK') throw refused('choosing a vCPU', answer)
    const before = this.#stops
    this.#send('s', deadline)
    while (this.#stops === before) this.#noteStop(this.#next(deadline))
    this.#stops = before
  }

  /** Whether a vCPU has stopped since the VM went on. */
  hasStopped(): boolean {
    for (let bytes = this.#socket.receiveNow(); bytes; bytes = this.#socket.receiveNow()) this.#packets.push(bytes)
    for (let said = this.#packets.next(); said; said = this.#packets.next()) {
      if ('data' in said) this.#noteStop(said.data)
    }
    return this.#stops > 0
  }

  /** Calls back on the event loop when something has arrived; keeps the process alive while told so. */
  watch(callback: () => void): void {
    this.#socket.watch(callback)
  }

  keepAlive(alive: boolean): void {
    this.#socket.keepAlive(alive)
  }

  /** The VM goes on, if it was halted, up to the next breakpoint that is left. */
  close(): void {
    this.#socket.close()
  }

  /** `$T05thread:01;#..` for each vCPU that has halted; or why it will not serve. */
  #greet(deadline: number): void {
    let data = this.#next(deadline)
    // A vCPU that stands at a breakpoint of a client that has gone is spoken of first.
    for (let said = outputOf(data); said !== undefined; said = outputOf(data)) {
      const complaint = complaintIn(said)
      if (complaint !== undefined) {
        throw new MicrovmiError(
          'PROTOCOL',
          `the GDB stub does not serve a guest that has not left real mode: ${complaint}`,
        )
      }
      data = this.#next(deadline)
    }
    if (!isStop(data)) throw refused('connecting', data)
    this.#noteStop(data)
    this.#awaitStops(deadline)
  }

  /**
   * VirtualBox keeps the breakpoints of a client that has gone, and a vCPU that hits one of them stands there, for ever.
   * The stub serves one client at a time: what is there before ours are is nobody's.
   */
  #takeOutLeftovers(): number {
    const numbers = breakpointsIn(this.ask(['bl']))
    const complaint = complaintIn(this.ask(numbers.map((number) => `bc ${number.toString(16)}`)))
    if (complaint !== undefined) throw new MicrovmiError('HYPERVISOR', `the debug console: ${complaint}`)
    return numbers.length
  }

  /** Returns when each vCPU has said that it has stopped, or no further one does. */
  #awaitStops(deadline: number): void {
    while (this.#stops < this.#vcpuCount) {
      try {
        // The first one may take its time, and the others come with it.
        this.#noteStop(this.#next(this.#stops === 0 ? deadline : Math.min(deadline, performance.now() + QUIET)))
      } catch (error) {
        if (this.#stops > 0 && error instanceof MicrovmiError && error.code === 'TIMEOUT') return
        throw error
      }
    }
  }

  /** The stub says nothing to it but that it has it, and does nothing unless all vCPUs are halted. */
  #resume(): void {
    this.#stops = 0
    this.#send('c', performance.now() + this.#timeout)
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
      if (!isStop(data)) return data
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
    if (isStop(data)) this.#stops += 1
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

/** `T05…` or `S05` (GDB manual, "Stop Reply Packets"). */
function isStop(data: string): boolean {
  return /^[TS][0-9a-f]{2}/i.test(data)
}

function refused(what: string, answer: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the GDB stub answers '${answer.slice(0, 40)}' for ${what}`)
}
