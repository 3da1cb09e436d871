import {
  type BackendEvent,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type Reply,
} from '@microvmi/core/driver'
import { ALL_RIGHTS } from '@microvmi/page-rights'
import type { Control } from './controls.ts'
import type { KvmiEvent } from './event-message.ts'
import { backendEvent, breakpointAddress, EVENT_OF, faultFrame, fits, occurrenceOf } from './kinds.ts'
import { eventRegisters } from './kvm-registers.ts'
import { type EventParts, startEvents, steppedBy } from './start-events.ts'
import type { Step } from './stepper.ts'

interface Armed {
  readonly request: InterceptRequest
  readonly controls: readonly Control[]
}

/** `events.*`: what the kernel reports, as core takes it. */
export class KvmiEvents implements EventBackend {
  readonly #parts: EventParts
  readonly #onGone: (error: MicrovmiError) => void
  readonly #armed = new Map<number, Armed>()
  /** What core was told of and has not answered. */
  readonly #delivered = new Map<BackendEvent, KvmiEvent>()
  #sink: EventSink | undefined
  #scheduled = false
  #gone = false

  /** @param onGone called when the connection has ended, or has to be: for a reset, a migration */
  constructor(parts: EventParts, onGone: (error: MicrovmiError) => void) {
    this.#parts = parts
    this.#onGone = onGone
    const { connection, vcpus } = parts
    vcpus.onQueued = () => this.#schedule()
    connection.watch(() => this.#deliver())
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    const controls = startEvents(this.#parts, request, armed)
    this.#armed.set(armed, { request, controls })
    this.#parts.connection.keepAlive(true)
  }

  disarm(armed: number): void {
    const found = this.#armed.get(armed)
    if (!found) return
    this.#armed.delete(armed)
    if (this.#armed.size === 0) this.#parts.connection.keepAlive(false)
    if (this.#parts.connection.hasEnded) return
    this.#stop(found, armed)
    // What had been on its way was there before the last command's answer.
    this.#proceedWithUnwanted()
  }

  reply(event: BackendEvent, parts: Reply): void {
    const raised = this.#delivered.get(event)
    if (!raised) return
    this.#delivered.delete(event)
    this.#parts.replies.reply(raised, event.kind, parts)
  }

  /**
   * Nobody listens any more: what is on its way ends, and everything that waits proceeds. So does what comes later, a
   * pause for one: it is looked at until the connection is closed.
   */
  release(): void {
    for (const armed of [...this.#armed.keys()]) this.disarm(armed)
    this.#parts.stepper.settle(() => this.#proceedWithUnwanted())
    this.#proceedWithUnwanted()
  }

  #stop({ request, controls: enabled }: Armed, armed: number): void {
    const { controls, breakpoints, rights, vcpus } = this.#parts
    if (request.kind === 'singlestep') for (const vcpu of steppedBy(request, vcpus.count)) controls.stopStepping(vcpu)
    if (request.kind === 'memory') rights.unguard(armed)
    if (request.kind === 'breakpoint' || request.kind === 'int3') {
      // A vCPU may have met an int3 and not told of it yet: without the event it would be the guest's own.
      this.#whilePaused(() => {
        breakpoints.remove(armed)
        this.#proceedWithUnwanted()
        controls.disable(enabled)
      })
      return
    }
    controls.disable(enabled)
  }

  #whilePaused(work: () => void): void {
    const { vcpus } = this.#parts
    if (vcpus.isPaused) {
      work()
      return
    }
    vcpus.pause()
    try {
      work()
    } finally {
      vcpus.resume()
    }
  }

  /** From the event loop: tells core of everything that has arrived. */
  #deliver(): void {
    this.#scheduled = false
    if (this.#gone) return
    const { connection, vcpus } = this.#parts
    try {
      connection.poll()
      for (let event = vcpus.take(); event && !this.#gone; event = vcpus.take()) this.#tell(event)
      if (vcpus.isUnhooked) throw new MicrovmiError('VM_GONE', UNHOOKED)
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      // Nobody could be told but the loops over events: whatever it is, it ends the session.
      this.#gone = true
      this.#onGone(error)
      this.#delivered.clear()
      this.#sink?.fail(error)
    }
  }

  #tell(event: KvmiEvent): void {
    if (event.name === 'createVcpu') {
      this.#parts.controls.enableFor(event.vcpu)
      this.#parts.vcpus.answer(event)
      return
    }
    const told = this.#find(event)
    if (!told || !this.#sink) {
      this.#parts.replies.proceed(event)
      return
    }
    this.#delivered.set(told, event)
    this.#sink.deliver(told)
  }

  /** The event for core, if anybody asked for it. Ends the step that it is the end of. */
  #find(event: KvmiEvent): BackendEvent | undefined {
    if (event.name === 'singlestep') return this.#findStep(event)
    if (event.name === 'breakpoint') {
      const physical = breakpointAddress(event)
      if (this.#parts.breakpoints.has(physical)) return this.#findBreakpoint(event, physical)
      if (this.#parts.breakpoints.isGone(physical)) return undefined
    }
    const occurrence = occurrenceOf(event)
    if (!occurrence) return undefined
    const armed = this.#matching((request) => fits(request, occurrence, this.#isForbidden(event)))
    return armed.length > 0 ? backendEvent(event, occurrence, armed) : undefined
  }

  #findBreakpoint(event: KvmiEvent, physical: number): BackendEvent | undefined {
    const { rip, cr3 } = eventRegisters(event.view, event.start)
    const armed = this.#parts.breakpoints.at(physical, rip, cr3)
    if (armed.length === 0) return undefined
    const registers = () => eventRegisters(event.view, event.start)
    const { vcpu } = event
    return { kind: 'breakpoint', armed, vcpu, stops: 'vcpu', complete: true, registers, fields: { address: rip } }
  }

  #findStep(event: KvmiEvent): BackendEvent | undefined {
    // u8 failed, where it is told: the instruction was not executed.
    const failed = event.view.byteLength > event.specific && event.view.getUint8(event.specific) !== 0
    if (failed) return undefined
    const step: Step | undefined = this.#parts.stepper.end(event.vcpu)
    const occurrence = occurrenceOf(event)
    const armed = this.#matching(
      (request) =>
        request.kind === 'singlestep' &&
        (request.vcpu === undefined || request.vcpu === event.vcpu) &&
        (step?.asked === true || !request.onlyAsked),
    )
    return occurrence && armed.length > 0 ? backendEvent(event, occurrence, armed) : undefined
  }

  /** An access that the app itself has forbidden is told to whoever watches the page. */
  #isForbidden(event: KvmiEvent): boolean {
    if (event.name !== 'pageFault') return false
    const { view, frame } = faultFrame(event)
    const faulted = event.view.getUint8(event.specific + 16) & ALL_RIGHTS
    return (faulted & ~this.#parts.rights.rights(view, frame)) !== 0
  }

  #matching(fit: (request: InterceptRequest) => boolean): number[] {
    const numbers: number[] = []
    for (const [number, { request }] of this.#armed) if (fit(request)) numbers.push(number)
    return numbers
  }

  /** What is queued and nobody wants any more goes on. */
  #proceedWithUnwanted(): void {
    const { vcpus, replies } = this.#parts
    const unwanted = vcpus.takeAll((event) => event.name !== 'createVcpu' && !this.#isWanted(event))
    for (const event of unwanted) {
      if (event.name === 'singlestep') this.#parts.stepper.end(event.vcpu)
      replies.proceed(event)
    }
  }

  #isWanted(event: KvmiEvent): boolean {
    const kinds = [...this.#armed.values()].map(({ request }) => request.kind)
    return kinds.some((kind) => {
      if (kind === 'breakpoint') return event.name === 'breakpoint'
      if (kind === 'cr' && event.name === 'xsetbv') return true
      return kind in EVENT_OF && EVENT_OF[kind as keyof typeof EVENT_OF] === event.name
    })
  }

  #schedule(): void {
    if (this.#scheduled || this.#gone) return
    this.#scheduled = true
    setImmediate(() => this.#deliver())
  }
}

const UNHOOKED =
  'QEMU has asked introspection to let go (a migration, a snapshot, a suspend or a shutdown): open the VM again when it runs'
