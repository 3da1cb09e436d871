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
import { SLOT } from './abi/vm-event.ts'
import { type AnswerParts, Answers } from './answers.ts'
import { ArmedRequests } from './armed-requests.ts'
import { DomainWatch } from './domain-watch.ts'
import { answerFor, Monitor } from './monitor.ts'
import { RequestQueue, type Slot } from './request-queue.ts'
import type { SessionNote } from './session-note.ts'
import { checkRequest, Settings } from './settings.ts'
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

/** Milliseconds between two looks at whether vCPUs have made their last steps: a paused domain makes none. */
const STEP_LOOK = 10

/** The events of a domain's monitor. */
export class XenEvents implements EventBackend {
  readonly #xen: Xen
  readonly #parts: EventParts
  readonly #answers: Answers
  #settings: Settings
  readonly #armed = new ArmedRequests()
  /** Taken from the ring and not delivered yet. */
  readonly #queue: RequestQueue
  readonly #delivered = new Map<BackendEvent, Slot>()
  #monitor: Monitor | undefined
  #watch: DomainWatch | undefined
  #sink: EventSink | undefined
  #scheduled = false
  #resting: NodeJS.Timeout | undefined

  constructor(xen: Xen, parts: EventParts) {
    this.#xen = xen
    this.#parts = parts
    this.#settings = this.#fresh()
    this.#answers = new Answers({ ...parts, abi: xen.abi }, (vcpu) => this.#armed.hearsStepsOf(vcpu, true))
    parts.views.useSteps(
      (view) => {
        this.#monitor?.notify()
        parts.stepping.stay()
        // What waits for its answer goes on there.
        this.#queue.moved(view)
        for (const slot of this.#delivered.values()) slot.setUint16(SLOT.view, view, true)
      },
      (vcpu) => parts.stepping.backOf(vcpu),
    )
    this.#queue = new RequestQueue(xen.abi.slotLength, parts.stepping, parts.vcpus)
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
      // Answers may begin steps: what these need stays on.
      this.#queue.drain(monitor)
      this.#answerUnwanted()
      this.#settings.apply([...this.#armed.values()], this.#isHeld)
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
    const { rights, views } = this.#parts
    if (!this.#monitor && !views.isOn && rights.isEmpty) return
    if (this.#parts.gone()) {
      this.#end()
      return
    }
    this.#hold('domain_pause')
    try {
      this.#drop()
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
    this.#parts.stepping.always((vcpu) => this.#armed.hearsStepsOf(vcpu, false), this.#parts.vcpus())
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
    this.#queue.clear()
    this.#delivered.clear()
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
      this.#queue.drain(monitor)
      this.#deliverAll()
      monitor.notify()
    } catch (error) {
      this.#fail(error)
    }
  }

  #deliverAll(): void {
    for (let slot = this.#queue.shift(); slot; slot = this.#queue.shift()) this.#deliver(slot)
  }

  #eventOf(slot: Slot): BackendEvent | undefined {
    const { breakpoints, views } = this.#parts
    return this.#armed.eventOf(slot, { abi: this.#xen.abi, breakpoints, views, queue: this.#queue })
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

  /** Answers so that the guest goes on as if unwatched. */
  #proceed(slot: Slot): void {
    try {
      this.#answers.proceed(slot)
    } finally {
      this.#answer(slot)
    }
  }

  #answer(slot: Slot): void {
    this.#queue.answer(slot, this.#monitor)
  }

  /** Turns on what is to be reported; where that means turning something else off, on a domain that stands still. */
  #change(requests: readonly InterceptRequest[], isHeld = this.#isHeld): void {
    if (!this.#settings.losesWith(requests, isHeld)) {
      this.#settings.apply(requests, isHeld)
      return
    }
    this.#hold('domain_pause')
    try {
      if (this.#monitor) this.#queue.drain(this.#monitor)
      this.#settings.apply(requests, isHeld)
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
    this.#queue.sift(
      (slot) => this.#eventOf(slot) !== undefined,
      (slot) => this.#proceed(slot),
    )
    this.#monitor?.notify()
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.isEmpty) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#wake()
    })
  }

  /** Gives the monitor back once nothing needs it: not before vCPUs have made the steps that are before them. */
  #endIfIdle(): void {
    clearTimeout(this.#resting)
    if (this.#armed.size > 0 || !this.#parts.rights.isEmpty || !this.#monitor) return
    if (this.#parts.stepping.isBusy()) {
      this.#resting = setTimeout(() => this.#rest(), STEP_LOOK).unref()
      return
    }
    this.#hold('domain_pause')
    try {
      this.#drop()
    } finally {
      this.#hold('domain_unpause')
    }
  }

  /** Answers what is left and gives the monitor back, on a domain that stands still. */
  #drop(): void {
    const { stepping, rights } = this.#parts
    if (this.#monitor) this.#queue.drain(this.#monitor)
    this.#answerUnwanted()
    stepping.release()
    rights.release()
    this.#settings.apply([], false)
    this.#end()
  }

  #rest(): void {
    try {
      this.#endIfIdle()
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
