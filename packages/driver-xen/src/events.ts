import {
  type Access,
  type BackendEvent,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type Reply,
} from '@microvmi/core/driver'
import { bitsOf } from '@microvmi/page-rights'
import { FLAG, pagingRegistersOf, REASON, registersOf, ripOf, SLOT } from './abi/vm-event.ts'
import { type AnswerParts, Answers, IS_AHEAD } from './answers.ts'
import { DomainWatch } from './domain-watch.ts'
import { answerFor, Monitor } from './monitor.ts'
import { eventFields, isWanted, kindOf, physicalOf } from './requests.ts'
import type { SessionNote } from './session-note.ts'
import { checkRequest, Settings } from './settings.ts'
import { type Step, setView } from './stepping.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** What events need of the rest of the driver. */
export interface EventParts extends Omit<AnswerParts, 'abi'> {
  readonly domid: number
  readonly note: SessionNote
  readonly vcpus: () => number
  /** Why the domain is of no use any more, if so. */
  readonly gone: () => MicrovmiError | undefined
}

/** A request of Xen's, which is to be answered once. */
type Slot = DataView

/** Milliseconds between two looks at whether vCPUs have made their last steps, and for how long is looked. */
const STEP_LOOK = 5
const STEP_DEADLINE = 500

/** The events of a domain's monitor. */
export class XenEvents implements EventBackend {
  readonly #xen: Xen
  readonly #parts: EventParts
  readonly #answers: Answers
  #settings: Settings
  readonly #armed = new Map<number, InterceptRequest>()
  /** Taken from the ring and not delivered yet. */
  readonly #queue: Slot[] = []
  readonly #delivered = new Map<BackendEvent, Slot>()
  /** Steps that were made, by the request that told of them. */
  readonly #steps = new Map<Slot, Step>()
  readonly #spare: Slot[] = []
  #monitor: Monitor | undefined
  #watch: DomainWatch | undefined
  #sink: EventSink | undefined
  #scheduled = false
  #resting: NodeJS.Timeout | undefined
  /** How many vCPUs there were when last asked. */
  #vcpus = 0

  constructor(xen: Xen, parts: EventParts) {
    this.#xen = xen
    this.#parts = parts
    this.#settings = this.#fresh()
    this.#answers = new Answers({ ...parts, abi: xen.abi }, (vcpu) => this.#steppers(vcpu, true))
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    checkRequest(request)
    if (request.kind === 'memory' && request.view !== undefined) this.#parts.views.check(request.view)
    const monitor = this.#monitored()
    try {
      this.#change([...this.#armed.values(), request], request.kind === 'memory')
      this.#armed.set(armed, request)
      this.#start(request, armed)
    } catch (error) {
      this.#armed.delete(armed)
      this.#change([...this.#armed.values()])
      this.#endIfIdle()
      throw error
    }
    monitor.keepAlive(true)
  }

  disarm(armed: number): void {
    const monitor = this.#monitor
    const request = this.#armed.get(armed)
    if (!monitor || !request) return
    // A request that is on its way while something is turned off would keep its vCPU for good.
    this.#hold('domain_pause')
    try {
      this.#armed.delete(armed)
      if (request.kind === 'breakpoint') this.#parts.breakpoints.remove(armed)
      if (request.kind === 'memory') this.#parts.rights.unguard(armed)
      if (request.kind === 'singlestep') this.#stepAlways(monitor)
      this.#settings.apply([...this.#armed.values()], this.#isHeld)
      this.#drain(monitor)
      this.#answerUnwanted()
      monitor.keepAlive(this.#armed.size > 0)
      this.#endIfIdle()
    } catch (error) {
      this.#failLater(error)
      throw error
    } finally {
      this.#hold('domain_unpause')
    }
  }

  reply(event: BackendEvent, parts: Reply): void {
    const slot = this.#delivered.get(event)
    if (!slot) return
    this.#delivered.delete(event)
    try {
      this.#answers.reply(event, slot, parts)
    } finally {
      this.#answer(slot)
      this.#monitor?.notify()
    }
  }

  /** Rights that the app gives pages. What they forbid is let through, unless an intercept asks for it. */
  setAccess(address: number, length: number, access: Access, view: number | undefined): void {
    if (view !== undefined) this.#parts.views.check(view)
    this.#monitored()
    try {
      this.#change([...this.#armed.values()], true)
      this.#parts.rights.setAccess(address, length, access, view)
    } finally {
      this.#endIfIdle()
    }
  }

  /** Core has disarmed everything: nothing of ours is left in the guest on return. */
  release(): void {
    clearTimeout(this.#resting)
    const { stepping, rights, views } = this.#parts
    if (!this.#monitor && !views.isOn && rights.isEmpty) return
    if (this.#parts.gone()) {
      this.#end()
      return
    }
    this.#hold('domain_pause')
    try {
      stepping.release()
      rights.release()
      this.#settings.apply([], false)
      if (this.#monitor) this.#drain(this.#monitor)
      this.#answerUnwanted()
      this.#end()
      views.release()
    } finally {
      this.#hold('domain_unpause')
    }
  }

  close(): void {
    clearTimeout(this.#resting)
    this.#watch?.close()
    this.#watch = undefined
    this.#end()
  }

  #fresh(): Settings {
    return new Settings(this.#xen, this.#parts.domid, this.#parts.canStep)
  }

  #monitored(): Monitor {
    this.#monitor ??= new Monitor(this.#xen, this.#parts.domid, this.#parts.note, () => this.#wake())
    this.#watch ??= new DomainWatch(this.#xen, () => this.#look())
    return this.#monitor
  }

  /** What Xen need not be told of. */
  #start(request: InterceptRequest, armed: number): void {
    const { breakpoints, rights } = this.#parts
    if (request.kind === 'breakpoint') breakpoints.add(armed, request)
    if (request.kind === 'memory') {
      rights.guard(armed, request.address, request.length, bitsOf(request.access), request.view)
    }
    if (request.kind !== 'singlestep' || !this.#monitor) return
    this.#hold('domain_pause')
    try {
      this.#stepAlways(this.#monitor)
    } finally {
      this.#hold('domain_unpause')
    }
  }

  /** Steps all vCPUs whose every step is asked for; the domain stands still. */
  #stepAlways(monitor: Monitor): void {
    monitor.notify()
    this.#parts.stepping.always((vcpu) => this.#steppers(vcpu, false), this.#parts.vcpus())
  }

  /** Whether somebody listens to a vCPU's steps: to all of them, or at least to those that replies ask for. */
  #steppers(vcpu: number, isAsked: boolean): boolean {
    for (const request of this.#armed.values()) {
      if (request.kind !== 'singlestep' || (request.onlyAsked === true && !isAsked)) continue
      if (request.vcpu === undefined || request.vcpu === vcpu) return true
    }
    return false
  }

  /** A domain has been released, perhaps this one. */
  #look(): void {
    const gone = this.#parts.gone()
    if (gone) this.#fail(gone)
  }

  /** Pauses are counted by Xen: this is one of our own, beside the session's. */
  #hold(call: 'domain_pause' | 'domain_unpause'): void {
    const { xc } = this.#xen.libraries
    if (xc[call](this.#xen.handle, this.#parts.domid) < 0 && !this.#parts.gone()) {
      throw failed(`xc_${call}`, `domain ${this.#parts.domid}`)
    }
  }

  /**
   * Ends everything at once. The ring cannot be trusted any more, but a domain that is there is left as if it had never
   * been watched: it stands still while all that is ours goes, and vCPUs that nobody will answer are freed.
   */
  #abandon(): void {
    const numbers = [...this.#armed.keys()]
    const { breakpoints, stepping, rights, views } = this.#parts
    this.#queue.length = 0
    this.#delivered.clear()
    this.#steps.clear()
    this.#armed.clear()
    // Whatever Xen was told to report goes with the monitor.
    this.#settings = this.#fresh()
    if (this.#parts.gone()) {
      stepping.forget()
      this.#end()
      return
    }
    this.#hold('domain_pause')
    try {
      for (const number of numbers) breakpoints.remove(number)
      stepping.release()
      rights.release()
    } finally {
      try {
        this.#end()
        answerFor(this.#xen, this.#parts.domid, this.#parts.vcpus())
        views.release()
      } finally {
        this.#hold('domain_unpause')
      }
    }
  }

  /** On the event loop. */
  #wake(): void {
    const monitor = this.#monitor
    if (!monitor) return
    try {
      monitor.acknowledge()
      this.#drain(monitor)
      this.#deliverAll()
      monitor.notify()
    } catch (error) {
      this.#fail(error)
    }
  }

  #drain(monitor: Monitor): void {
    do {
      for (;;) {
        const slot = this.#spare.pop() ?? new DataView(new ArrayBuffer(this.#xen.abi.slotLength))
        if (!monitor.take(new Uint8Array(slot.buffer))) {
          this.#spare.push(slot)
          break
        }
        this.#took(slot)
        this.#queue.push(slot)
      }
    } while (!monitor.sleep())
  }

  #took(slot: Slot): void {
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    this.#checkVcpu(vcpu)
    const { stepping } = this.#parts
    stepping.arrived(vcpu, slot.getUint16(SLOT.view, true))
    if (slot.getUint32(SLOT.reason, true) !== REASON.singleStep) return
    const step = stepping.stepped(vcpu)
    if (!step) return
    this.#steps.set(slot, step)
    // Behind the step the vCPU is to be where it was before.
    if (step.back !== undefined) slot.setUint16(SLOT.view, step.back, true)
  }

  #checkVcpu(vcpu: number): void {
    if (vcpu < this.#vcpus) return
    this.#vcpus = this.#parts.vcpus()
    if (vcpu < this.#vcpus) return
    throw new MicrovmiError('PROTOCOL', `a request of vCPU ${vcpu}, where the domain has ${this.#vcpus}`)
  }

  #deliverAll(): void {
    for (let slot = this.#queue.shift(); slot; slot = this.#queue.shift()) this.#deliver(slot)
  }

  #deliver(slot: Slot): void {
    const event = this.#eventOf(slot)
    if (!event) {
      this.#proceed(slot)
      return
    }
    if (event.stops === 'none') this.#proceed(slot)
    else this.#delivered.set(event, slot)
    this.#sink?.deliver(event)
  }

  /** What core hears of a request; `undefined` where nobody wants it. */
  #eventOf(slot: Slot): BackendEvent | undefined {
    const { abi } = this.#xen
    const { breakpoints, views } = this.#parts
    const rip = ripOf(slot, abi)
    const kind = kindOf(slot, () => breakpoints.has(physicalOf(slot, rip)))
    if (kind === undefined) return undefined
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    const fields = eventFields(kind, slot, rip, abi, (view) => (views.isOn ? views.named(view) : undefined))
    const armed =
      kind === 'breakpoint'
        ? breakpoints.at(physicalOf(slot, rip), rip, pagingRegistersOf(slot, abi).cr3)
        : this.#wanting(kind, (request) => isWanted(request, fields) && this.#isOfStep(request, slot, vcpu))
    if (armed.length === 0) return undefined
    const isPaused = (slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused) !== 0
    return {
      kind,
      armed,
      vcpu,
      stops: isPaused ? 'vcpu' : 'none',
      // Without views a page is open to all while one vCPU steps over an access to it.
      complete: kind !== 'memory' || views.isOn || this.#vcpus === 1,
      ...(IS_AHEAD.has(kind) ? { registers: () => registersOf(slot, abi) } : {}),
      fields,
    } as BackendEvent
  }

  #wanting(kind: BackendEvent['kind'], wants: (request: InterceptRequest) => boolean): number[] {
    const numbers: number[] = []
    for (const [number, request] of this.#armed) if (request.kind === kind && wants(request)) numbers.push(number)
    return numbers
  }

  #isOfStep(request: InterceptRequest, slot: Slot, vcpu: number): boolean {
    if (request.kind !== 'singlestep') return true
    const isAsked = this.#steps.get(slot)?.isReported === true
    return (request.vcpu === undefined || request.vcpu === vcpu) && (request.onlyAsked !== true || isAsked)
  }

  /** Answers so that the guest goes on as if unwatched. */
  #proceed(slot: Slot): void {
    try {
      this.#answers.proceed(slot)
    } finally {
      this.#answer(slot)
    }
  }

  #answer(slot: Slot): void {
    const flags = slot.getUint32(SLOT.flags, true)
    const step = this.#steps.get(slot)
    this.#steps.delete(slot)
    if (step?.back !== undefined && (flags & FLAG.view) === 0) setView(slot, step.back)
    if (this.#parts.canStep && (flags & FLAG.vcpuPaused) !== 0) this.#parts.stepping.settle(slot)
    this.#monitor?.answer(new Uint8Array(slot.buffer))
    this.#spare.push(slot)
  }

  /** Turns on what is to be reported; where that means turning something else off, on a domain that stands still. */
  #change(requests: readonly InterceptRequest[], isHeld = this.#isHeld): void {
    if (!this.#settings.losesWith(requests, isHeld)) {
      this.#settings.apply(requests, isHeld)
      return
    }
    this.#hold('domain_pause')
    try {
      this.#settings.apply(requests, isHeld)
      if (this.#monitor) this.#drain(this.#monitor)
      this.#schedule()
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'PROTOCOL') this.#failLater(error)
      throw error
    } finally {
      this.#hold('domain_unpause')
    }
  }

  /** Whether Xen must report steps, whoever listens: pages have less than all rights, or a vCPU has a step before it. */
  get #isHeld(): boolean {
    return !this.#parts.rights.isEmpty || this.#parts.stepping.isBusy()
  }

  /** After a change: what nobody waits for any more goes on, the rest is delivered on the event loop. */
  #answerUnwanted(): void {
    const waiting = this.#queue.splice(0)
    for (const slot of waiting) {
      if (this.#eventOf(slot)) this.#queue.push(slot)
      else this.#proceed(slot)
    }
    this.#monitor?.notify()
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#wake()
    })
  }

  /** Gives the monitor back once nothing needs it; vCPUs that still have a step before them make it first. */
  #endIfIdle(since = performance.now()): void {
    clearTimeout(this.#resting)
    if (this.#armed.size > 0 || !this.#parts.rights.isEmpty || !this.#monitor) return
    const { stepping } = this.#parts
    if (stepping.isBusy() && performance.now() - since < STEP_DEADLINE) {
      this.#resting = setTimeout(() => this.#rest(since), STEP_LOOK)
      return
    }
    this.#hold('domain_pause')
    try {
      stepping.release()
      this.#settings.apply([], false)
      this.#drain(this.#monitor)
      this.#answerUnwanted()
      this.#end()
    } finally {
      this.#hold('domain_unpause')
    }
  }

  #rest(since: number): void {
    try {
      this.#endIfIdle(since)
    } catch (error) {
      this.#fail(error)
    }
  }

  #end(): void {
    const monitor = this.#monitor
    this.#monitor = undefined
    monitor?.close()
  }

  /** Within a call of core's, which the sink must not be called from. */
  #failLater(error: unknown): void {
    setImmediate(() => this.#fail(error))
  }

  #fail(error: unknown): void {
    let reason =
      error instanceof MicrovmiError ? error : new MicrovmiError('HYPERVISOR', String(error), { cause: error })
    try {
      this.#abandon()
    } catch (other) {
      const message = `${reason.message}; and the guest could not be put back as it was: ${other}`
      reason = new MicrovmiError(reason.code, message, { cause: other })
    }
    this.#sink?.fail(reason)
  }
}
