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
import { ArmedRequests, type EventSource, type XenEvent } from './armed-requests.ts'
import { Lookout } from './lookout.ts'
import { answerFor } from './monitor.ts'
import { type MonitoredDomain, MonitorSession } from './monitor-session.ts'
import { RequestQueue, type Slot } from './request-queue.ts'
import { checkRequest } from './settings.ts'
import type { Xen } from './xen.ts'

/** What events need of the rest of the driver. */
export interface EventParts extends Omit<AnswerParts, 'abi'>, MonitoredDomain {
  readonly vcpus: () => number
  /** Microseconds for which to look for the next request before sleeping. */
  readonly spin: number
}

/** Milliseconds between two looks at whether vCPUs have made their last steps: a paused domain makes none. */
const STEP_LOOK = 10

/** The events of a domain's monitor. */
export class XenEvents implements EventBackend {
  readonly #xen: Xen
  readonly #parts: EventParts
  readonly #answers: Answers
  readonly #session: MonitorSession
  readonly #armed = new ArmedRequests()
  /** Taken from the ring and not delivered yet. */
  readonly #queue: RequestQueue
  readonly #source: EventSource
  readonly #delivered = new Set<Slot>()
  readonly #lookout: Lookout
  #sink: EventSink | undefined
  #scheduled = false
  #resting: NodeJS.Timeout | undefined

  constructor(xen: Xen, parts: EventParts) {
    this.#xen = xen
    this.#parts = parts
    this.#session = new MonitorSession(
      xen,
      parts,
      () => this.#wake(),
      () => this.#look(),
    )
    this.#lookout = new Lookout(parts.spin)
    this.#answers = new Answers({ ...parts, abi: xen.abi }, (vcpu) => this.#armed.hearsStepsOf(vcpu, true))
    parts.views.useSteps(
      (view) => this.#move(view),
      (vcpu) => parts.stepping.backOf(vcpu),
    )
    this.#queue = new RequestQueue(xen.abi.slotLength, parts.stepping, parts.vcpus)
    const { breakpoints, views } = parts
    this.#source = { abi: xen.abi, breakpoints, views, queue: this.#queue }
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    checkRequest(request)
    if (request.kind === 'memory' && request.view !== undefined) this.#parts.views.check(request.view)
    const monitor = this.#session.begin()
    try {
      this.#change([...this.#armed.requests, request], request.kind === 'memory')
      this.#armed.set(armed, request)
      this.#start(request, armed)
    } catch (error) {
      this.#armed.delete(armed)
      this.#change(this.#armed.requests)
      this.#endIfIdle()
      throw error
    }
    monitor.keepAlive(true)
  }

  disarm(armed: number): void {
    const { monitor } = this.#session
    const request = this.#armed.get(armed)
    if (!monitor || !request) return
    // A request that is on its way while something is turned off would keep its vCPU for good.
    this.#session.whileStill(() => {
      try {
        this.#stop(request, armed)
        // Answers may begin steps: what these need stays on.
        this.#queue.drain(monitor)
        this.#answerUnwanted()
        this.#session.report(this.#armed.requests, this.#isHeld)
        monitor.keepAlive(this.#armed.size > 0)
        this.#endIfIdle()
      } catch (error) {
        this.#failLater(error)
        throw error
      }
    })
  }

  reply(event: BackendEvent, parts: Reply): void {
    const { slot } = event as XenEvent
    if (slot.event !== event) return
    this.#delivered.delete(slot)
    slot.event = undefined
    try {
      this.#answers.reply(event, slot, parts)
    } finally {
      this.#answer(slot)
      this.#session.monitor?.notify()
    }
  }

  /** Rights that the app gives pages. What they forbid is let through, unless an intercept asks for it. */
  setAccess(address: number, length: number, access: Access, view: number | undefined): void {
    if (view !== undefined) this.#parts.views.check(view)
    this.#session.begin()
    try {
      this.#change(this.#armed.requests, true)
      this.#parts.rights.setAccess(address, length, access, view)
    } finally {
      this.#endIfIdle()
    }
  }

  /** Core has disarmed everything: nothing of ours is left in the guest on return. */
  release(): void {
    clearTimeout(this.#resting)
    const { rights, views, note } = this.#parts
    if (!this.#session.monitor && !views.isOn && rights.isEmpty) return
    if (this.#parts.gone()) {
      this.#session.end()
      note.remove()
      return
    }
    this.#session.whileStill(() => {
      try {
        this.#drop()
        views.release()
      } catch (error) {
        throw this.#abandonFor(error)
      }
    })
  }

  close(): void {
    clearTimeout(this.#resting)
    this.#session.close()
  }

  /** Does what Xen's monitor need not be told of. */
  #start(request: InterceptRequest, armed: number): void {
    const { breakpoints, rights } = this.#parts
    if (request.kind === 'breakpoint') breakpoints.add(armed, request)
    if (request.kind === 'memory') {
      rights.guard(armed, request.address, request.length, bitsOf(request.access), request.view)
    }
    if (request.kind === 'singlestep') this.#session.whileStill(() => this.#stepAlways())
  }

  #stop(request: InterceptRequest, armed: number): void {
    this.#armed.delete(armed)
    if (request.kind === 'breakpoint') this.#parts.breakpoints.remove(armed)
    if (request.kind === 'memory') this.#parts.rights.unguard(armed)
    if (request.kind === 'singlestep') this.#stepAlways()
  }

  /** Steps all vCPUs whose every step is asked for; the domain stands still. */
  #stepAlways(): void {
    this.#session.monitor?.notify()
    this.#parts.stepping.always((vcpu) => this.#armed.hearsStepsOf(vcpu, false), this.#parts.vcpus())
  }

  /** All vCPUs are about to be put in a view of Xen's, on a domain that stands still: what they wait for goes on there. */
  #move(view: number): void {
    const { monitor } = this.#session
    try {
      monitor?.notify()
      if (monitor) this.#queue.drain(monitor)
      this.#parts.stepping.stay()
    } catch (error) {
      this.#failLater(error)
      throw error
    }
    this.#schedule()
    this.#queue.moved(view)
    for (const slot of this.#delivered) slot.setUint16(SLOT.view, view, true)
  }

  /** A domain has been released, perhaps this one. */
  #look(): void {
    const gone = this.#parts.gone()
    if (gone) this.#fail(gone)
  }

  /**
   * Ends everything at once. The ring cannot be trusted any more, but a domain that is there is left as if it had never
   * been watched: it stands still while all that is ours goes, and vCPUs that nobody will answer are freed.
   */
  #abandon(): void {
    const numbers = [...this.#armed.keys()]
    const { breakpoints, stepping, rights, views } = this.#parts
    this.#queue.clear()
    for (const slot of this.#delivered) slot.event = undefined
    this.#delivered.clear()
    this.#armed.clear()
    if (this.#parts.gone()) {
      stepping.forget()
      this.#session.end()
      return
    }
    this.#session.whileStill(() => {
      try {
        for (const number of numbers) breakpoints.remove(number)
        stepping.release()
        rights.release()
      } finally {
        this.#session.end()
        answerFor(this.#xen, this.#parts.domid, this.#parts.vcpus())
        views.release()
      }
    })
  }

  /** On the event loop. */
  #wake(): void {
    const { monitor } = this.#session
    if (!monitor) return
    this.#lookout.begin()
    try {
      monitor.acknowledge()
      do {
        this.#queue.takeAll(monitor)
        this.#deliverAll()
        monitor.notify()
        // What a handler has answered at once may be followed by the next at once.
      } while ((this.#delivered.size === 0 && this.#lookout.sees(monitor)) || !monitor.sleep())
    } catch (error) {
      this.#fail(error)
    }
  }

  #deliverAll(): void {
    for (let slot = this.#queue.shift(); slot; slot = this.#queue.shift()) this.#deliver(slot)
  }

  #deliver(slot: Slot): void {
    const event = this.#armed.eventOf(slot, this.#source)
    if (!event) {
      this.#proceed(slot)
      return
    }
    if (event.stops === 'none') this.#proceed(slot)
    else {
      slot.event = event
      this.#delivered.add(slot)
    }
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
    this.#queue.answer(slot, this.#session.monitor)
  }

  /** Turns on what is to be reported; where that means turning something else off, on a domain that stands still. */
  #change(requests: readonly InterceptRequest[], isHeld = this.#isHeld): void {
    if (!this.#session.losesWith(requests, isHeld)) {
      this.#session.report(requests, isHeld)
      return
    }
    this.#session.whileStill(() => {
      try {
        if (this.#session.monitor) this.#queue.drain(this.#session.monitor)
        this.#session.report(requests, isHeld)
        this.#schedule()
      } catch (error) {
        if (error instanceof MicrovmiError && error.code === 'PROTOCOL') this.#failLater(error)
        throw error
      }
    })
  }

  /** Whether Xen must report steps, whoever listens: pages have less than all rights, or a vCPU has a step before it. */
  get #isHeld(): boolean {
    return !this.#parts.rights.isEmpty || this.#parts.stepping.isBusy()
  }

  /** After a change: what nobody waits for any more goes on, the rest is delivered on the event loop. */
  #answerUnwanted(): void {
    this.#queue.sift(
      (slot) => this.#armed.eventOf(slot, this.#source) !== undefined,
      (slot) => this.#proceed(slot),
    )
    this.#session.monitor?.notify()
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
    if (this.#armed.size > 0 || !this.#parts.rights.isEmpty || !this.#session.monitor) return
    if (this.#parts.stepping.isBusy()) this.#resting = setTimeout(() => this.#rest(), STEP_LOOK).unref()
    else this.#session.whileStill(() => this.#drop())
  }

  /** Answers what is left and gives the monitor back, on a domain that stands still. */
  #drop(): void {
    const { stepping, rights } = this.#parts
    if (this.#session.monitor) this.#queue.drain(this.#session.monitor)
    this.#answerUnwanted()
    stepping.release()
    rights.release()
    this.#session.report([], false)
    this.#session.end()
  }

  #rest(): void {
    try {
      this.#endIfIdle()
    } catch (error) {
      this.#fail(error)
    }
  }

  /** Within a call of core's, which the sink must not be called from. */
  #failLater(error: unknown): void {
    setImmediate(() => this.#fail(error))
  }

  #fail(error: unknown): void {
    this.#sink?.fail(this.#abandonFor(error))
  }

  /** Ends everything; what is to be said of it. */
  #abandonFor(error: unknown): MicrovmiError {
    const reason =
      error instanceof MicrovmiError ? error : new MicrovmiError('HYPERVISOR', String(error), { cause: error })
    try {
      this.#abandon()
      return reason
    } catch (other) {
      const message = `${reason.message}; and the guest could not be put back as it was: ${other}`
      return new MicrovmiError(reason.code, message, { cause: other })
    }
  }
}
