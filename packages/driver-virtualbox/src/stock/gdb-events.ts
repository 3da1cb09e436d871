import {
  type BackendEvent,
  badArgument,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type RegisterBackend,
  type Reply,
} from '@microvmi/core/driver'
import type { GdbStub } from './gdb-stub.ts'

/**
 * Breakpoints through the GDB stub. A hit stops the whole VM; the stub does not say which vCPU has hit what, so it is
 * found by where the vCPUs stand.
 */
export class GdbEvents implements EventBackend {
  readonly #stub: GdbStub
  readonly #registers: RegisterBackend
  readonly #vcpuCount: number
  /** Breakpoints by core's number of the request. */
  readonly #armed = new Map<number, bigint>()
  readonly #held = new Set<BackendEvent>()
  /** vCPUs whose hit was told since the VM stands still. */
  readonly #standing = new Set<number>()
  #sink: EventSink | undefined
  #hasFailed = false

  constructor(stub: GdbStub, registers: RegisterBackend, vcpuCount: number) {
    this.#stub = stub
    this.#registers = registers
    this.#vcpuCount = vcpuCount
  }

  listen(sink: EventSink): void {
    this.#sink = sink
    this.#stub.watch(() => this.#look())
    this.#stub.beforeResuming = () => this.#stepOver()
  }

  arm(request: InterceptRequest, armed: number): void {
    if (request.kind !== 'breakpoint') throw unsupported(`events of kind ${request.kind}`)
    if (!('address' in request)) throw unsupported('breakpoints at guest-physical addresses')
    if (request.addressSpace !== undefined) throw unsupported('breakpoints in one address space')
    if (request.method === 'software') throw unsupported('software breakpoints: they would change the guest')
    if (BigInt.asUintN(64, request.address) !== request.address) throw badArgument('the address has more than 64 bits')
    if (!this.#isArmed(request.address)) this.#stub.setBreakpoint(request.address)
    this.#armed.set(armed, request.address)
    this.#stub.keepAlive(true)
  }

  disarm(armed: number): void {
    const address = this.#armed.get(armed)
    this.#armed.delete(armed)
    if (this.#armed.size === 0) this.#stub.keepAlive(false)
    if (address === undefined || this.#hasFailed || this.#isArmed(address)) return
    this.#stub.clearBreakpoint(address)
    // A hit that nobody has seen yet is nobody's now.
    if (!this.#stub.isHalted && this.#stub.hasStopped()) this.#goOn()
  }

  reply(event: BackendEvent, { registers }: Reply): void {
    try {
      if (registers) this.#registers.write?.(event.vcpu, registers)
    } finally {
      this.#held.delete(event)
      if (this.#held.size === 0 && !this.#hasFailed) this.#stub.letGo('event')
    }
  }

  /** Takes every breakpoint out, and lets the VM go on. */
  release(): void {
    for (const armed of [...this.#armed.keys()]) this.disarm(armed)
    this.#held.clear()
    if (!this.#hasFailed) this.#stub.letGo('event')
  }

  #look(): void {
    try {
      if (this.#hasFailed || this.#stub.isHalted || !this.#stub.hasStopped()) return
      // Who hits a breakpoint stops alone: resuming wants them all halted.
      this.#stub.hold('event')
      const hits = this.#hits()
      for (const event of hits) {
        this.#held.add(event)
        this.#standing.add(event.vcpu)
      }
      if (hits.length === 0) this.#stub.letGo('event')
      for (const event of hits) this.#sink?.deliver(event)
    } catch (error) {
      this.#giveUp()
      this.#sink?.fail(error instanceof Error ? error : new MicrovmiError('PROTOCOL', String(error)))
    }
  }

  /** The VM goes on when its debugger has gone, and no breakpoint is left. */
  #giveUp(): void {
    this.#hasFailed = true
    try {
      for (const address of new Set(this.#armed.values())) this.#stub.clearBreakpoint(address)
    } catch (error) {
      // It is told why already. What is left the next session takes out.
      if (!(error instanceof MicrovmiError)) throw error
    } finally {
      this.#stub.close()
    }
  }

  /**
   * vCPUs whose hit was told stand on the breakpoint still, and would hit it again: VirtualBox's interpreter does not
   * heed the resume flag. One whose hit was not told yet shall.
   */
  #stepOver(): void {
    const standing = [...this.#standing]
    this.#standing.clear()
    for (const vcpu of standing) {
      const { rip } = this.#registers.read(vcpu)
      if (!this.#isArmed(rip)) continue
      this.#stub.clearBreakpoint(rip)
      try {
        this.#stub.step(vcpu)
      } finally {
        this.#stub.setBreakpoint(rip)
      }
    }
  }

  #goOn(): void {
    this.#stub.hold('event')
    this.#stub.letGo('event')
  }

  #isArmed(address: bigint): boolean {
    for (const other of this.#armed.values()) if (other === address) return true
    return false
  }

  #hits(): BackendEvent<'breakpoint'>[] {
    return Array.from({ length: this.#vcpuCount }, (_, vcpu) => vcpu).flatMap((vcpu) => {
      const registers = this.#registers.read(vcpu)
      const armed = [...this.#armed].filter(([, address]) => address === registers.rip).map(([number]) => number)
      if (armed.length === 0) return []
      const fields = { address: registers.rip }
      return [{ kind: 'breakpoint', armed, vcpu, stops: 'vm', complete: true, registers: () => registers, fields }]
    })
  }
}

function unsupported(what: string): MicrovmiError {
  return new MicrovmiError('UNSUPPORTED', `VirtualBox's GDB stub has no ${what}`)
}
