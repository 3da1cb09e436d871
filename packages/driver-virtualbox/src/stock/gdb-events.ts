import {
  type BackendEvent,
  badArgument,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type Reply,
} from '@microvmi/core/driver'
import type { GdbStub } from './gdb-stub.ts'
import type { VirtualBoxRegisters } from './registers.ts'

/**
 * Breakpoints through the GDB stub. A hit stops the whole VM; the stub does not say which vCPU has hit what, so it is
 * found by where the vCPUs stand. VirtualBox itself sets the resume flag on a hit: resuming steps over it.
 */
export class GdbEvents implements EventBackend {
  readonly #stub: GdbStub
  readonly #registers: VirtualBoxRegisters
  readonly #vcpuCount: number
  /** Breakpoints by core's number of the request. */
  readonly #armed = new Map<number, bigint>()
  readonly #held = new Set<BackendEvent>()
  #sink: EventSink | undefined
  #hasFailed = false

  constructor(stub: GdbStub, registers: VirtualBoxRegisters, vcpuCount: number) {
    this.#stub = stub
    this.#registers = registers
    this.#vcpuCount = vcpuCount
  }

  listen(sink: EventSink): void {
    this.#sink = sink
    this.#stub.watch(() => this.#look())
  }

  arm(request: InterceptRequest, armed: number): void {
    if (request.kind !== 'breakpoint') throw unsupported(`events of kind ${request.kind}`)
    if (!('address' in request)) throw unsupported('breakpoints at guest-physical addresses')
    if (request.addressSpace !== undefined) throw unsupported('breakpoints in one address space')
    if (request.method === 'software') throw unsupported('software breakpoints: they would change the guest')
    if (BigInt.asUintN(64, request.address) !== request.address) throw badArgument('the address has more than 64 bits')
    if (![...this.#armed.values()].includes(request.address)) this.#stub.setBreakpoint(request.address)
    this.#armed.set(armed, request.address)
    this.#stub.keepAlive(true)
  }

  disarm(armed: number): void {
    const address = this.#armed.get(armed)
    this.#armed.delete(armed)
    if (this.#armed.size === 0) this.#stub.keepAlive(false)
    if (address === undefined || this.#hasFailed || [...this.#armed.values()].includes(address)) return
    this.#stub.clearBreakpoint(address)
  }

  reply(event: BackendEvent, { registers }: Reply): void {
    try {
      if (registers) this.#registers.write(event.vcpu, registers)
    } finally {
      this.#held.delete(event)
      if (this.#held.size === 0 && !this.#hasFailed) this.#resume()
    }
  }

  /** Takes every breakpoint out, and lets the VM go on. */
  release(): void {
    if (this.#hasFailed) return
    for (const armed of [...this.#armed.keys()]) this.disarm(armed)
    this.#held.clear()
    this.#resume()
  }

  #resume(): void {
    this.#stub.isHalted = false
    this.#stub.resume()
  }

  #look(): void {
    try {
      // What stops while an event is held is a vCPU that was halted with the others.
      if (!this.#stub.hasStopped() || this.#held.size > 0) return
      // A vCPU that hits stops alone, perhaps; resuming wants them all halted.
      this.#stub.halt()
      const hits = this.#hits()
      for (const event of hits) this.#held.add(event)
      this.#stub.isHalted = hits.length > 0
      if (hits.length === 0) this.#stub.resume()
      for (const event of hits) this.#sink?.deliver(event)
    } catch (error) {
      this.#hasFailed = true
      // The VM goes on when its debugger has gone.
      this.#stub.close()
      this.#sink?.fail(error instanceof Error ? error : new MicrovmiError('PROTOCOL', String(error)))
    }
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
