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
 * Breakpoints and single steps through the GDB stub. A hit stops the whole VM; the stub does not say which vCPU has hit
 * what, so it is found by where the vCPUs stand. While a vCPU steps, the others stand still.
 */
export class GdbEvents implements EventBackend {
  readonly #stub: GdbStub
  readonly #registers: RegisterBackend
  readonly #vcpuCount: number
  /** Breakpoints by core's number of the request. */
  readonly #armed = new Map<number, bigint>()
  /** Requests for steps, by their numbers. */
  readonly #stepRequests = new Map<number, InterceptRequest<'singlestep'>>()
  /** vCPUs of which a reply has asked a step. */
  readonly #asked = new Set<number>()
  readonly #held = new Set<BackendEvent>()
  /** vCPUs whose hit was told since the VM stands still. */
  readonly #standing = new Set<number>()
  #sink: EventSink | undefined
  #hasFailed = false
  /** Steps are to be made as soon as nobody else holds the VM. */
  #isDue = false

  constructor(stub: GdbStub, registers: RegisterBackend, vcpuCount: number) {
    this.#stub = stub
    this.#registers = registers
    this.#vcpuCount = vcpuCount
  }

  listen(sink: EventSink): void {
    this.#sink = sink
    this.#stub.watch(() => this.#look())
    this.#stub.beforeResuming = () => this.#stepOver()
    this.#stub.letGoByOne = () => this.#stepSoon()
  }

  arm(request: InterceptRequest, armed: number): void {
    if (request.kind === 'singlestep') {
      this.#armSteps(request, armed)
      return
    }
    if (request.kind !== 'breakpoint') throw unsupported(`events of kind ${request.kind}`)
    if (!('address' in request)) throw unsupported('breakpoints at guest-physical addresses')
    if (request.addressSpace !== undefined) throw unsupported('breakpoints in one address space')
    if (request.method === 'software') throw unsupported('software breakpoints: they would change the guest')
    if (BigInt.asUintN(64, request.address) !== request.address) throw badArgument('the address has more than 64 bits')
    if (!this.#isArmed(request.address)) this.#stub.setBreakpoint(request.address)
    this.#armed.set(armed, request.address)
    this.#keepAlive()
  }

  disarm(armed: number): void {
    if (this.#stepRequests.delete(armed)) {
      this.#keepAlive()
      if (this.#isDue && !this.#hasFailed) this.#goOn()
      return
    }
    const address = this.#armed.get(armed)
    this.#armed.delete(armed)
    this.#keepAlive()
    if (address === undefined || this.#hasFailed || this.#isArmed(address)) return
    this.#stub.clearBreakpoint(address)
    // A hit that nobody has seen yet is nobody's now.
    if (!this.#stub.isHalted && this.#stub.hasStopped()) {
      this.#stub.hold('event')
      this.#stub.letGo('event')
    }
  }

  reply(event: BackendEvent, { registers, step }: Reply): void {
    try {
      if (typeof step === 'object') throw unsupported('views')
      if (registers) this.#registers.write?.(event.vcpu, registers)
      if (step === true) this.#asked.add(event.vcpu)
    } finally {
      this.#held.delete(event)
      if (this.#held.size === 0 && !this.#hasFailed) this.#goOn()
    }
  }

  /** Takes every breakpoint out, and lets the VM go on. */
  release(): void {
    for (const armed of [...this.#armed.keys(), ...this.#stepRequests.keys()]) this.disarm(armed)
    this.#held.clear()
    this.#asked.clear()
    this.#isDue = false
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
      this.#fail(error)
    }
  }

  #fail(error: unknown): void {
    this.#giveUp()
    this.#sink?.fail(error instanceof Error ? error : new MicrovmiError('PROTOCOL', String(error)))
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
      if (this.#isArmed(this.#registers.read(vcpu).rip)) this.#step(vcpu)
    }
  }

  /** After the last answer: vCPUs that are to step do so first. */
  #goOn(): void {
    this.#isDue = this.#asked.size > 0
    if (this.#isDue) this.#stepSoon()
    else this.#stub.letGo('event')
  }

  #armSteps(request: InterceptRequest<'singlestep'>, armed: number): void {
    if (request.vcpu !== undefined && request.vcpu >= this.#vcpuCount)
      throw badArgument(`there is no vCPU ${request.vcpu}`)
    // Of a step over HLT the stub does not come back (VirtualBox 7.2): every guest gets there.
    if (request.onlyAsked !== true) throw unsupported('steps but those that replies ask for: give onlyAsked')
    this.#stepRequests.set(armed, request)
    this.#keepAlive()
  }

  /** The requests that an asked step of a vCPU answers to. */
  #listeners(vcpu: number): number[] {
    const wanting = [...this.#stepRequests].filter(([, request]) => (request.vcpu ?? vcpu) === vcpu)
    return wanting.map(([number]) => number)
  }

  #stepSoon(): void {
    if (this.#isDue) setImmediate(() => this.#stepAll())
  }

  /** On the event loop: one instruction of each vCPU that is to step, and the events of that. */
  #stepAll(): void {
    if (!this.#isDue || this.#hasFailed || this.#stub.isHeldBy('pause')) return
    this.#isDue = false
    try {
      const events: BackendEvent[] = []
      for (const vcpu of [...this.#asked]) {
        this.#asked.delete(vcpu)
        this.#standing.delete(vcpu)
        this.#step(vcpu)
        const armed = this.#listeners(vcpu)
        const registers = this.#registers.read(vcpu)
        const fields = { address: registers.rip }
        const event = { kind: 'singlestep', armed, vcpu, stops: 'vm', complete: true, fields } as const
        if (armed.length > 0) events.push({ ...event, registers: () => registers })
      }
      for (const event of events) this.#held.add(event)
      if (events.length === 0) this.#goOn()
      for (const event of events) this.#sink?.deliver(event)
    } catch (error) {
      this.#fail(error)
    }
  }

  /** The guest's own instruction, whether a breakpoint is there or not. */
  #step(vcpu: number): void {
    const { rip } = this.#registers.read(vcpu)
    const isArmed = this.#isArmed(rip)
    if (isArmed) this.#stub.clearBreakpoint(rip)
    try {
      this.#stub.step(vcpu)
    } finally {
      if (isArmed) this.#stub.setBreakpoint(rip)
    }
  }

  #keepAlive(): void {
    this.#stub.keepAlive(this.#armed.size + this.#stepRequests.size > 0)
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
