import {
  type BackendEvent,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
} from '@microvmi/core/driver'
import { type Armed, ArmedRequests } from './armed.ts'
import { placementOf } from './breakpoints.ts'
import type { FdpClient } from './client.ts'
import { HitCauses } from './hit-causes.ts'
import { STATE } from './layout.ts'
import type { FdpRunState } from './run-state.ts'
import { SingleSteps } from './steps.ts'

/** Milliseconds between two looks at the state-changed flag, while nothing happens. */
const POLL_INTERVAL = 1
/** After an event the flag is looked at in every turn of the event loop for so many milliseconds. */
const EAGER = 2

/** A vCPU that has stopped at a breakpoint. */
interface Hit {
  readonly vcpu: number
  readonly step: boolean
  /** Events that have no answer yet. */
  waiting: number
}

/** Breakpoints of the server as events: the state-changed flag says that there is one. */
export class FdpEvents implements EventBackend {
  readonly #client: FdpClient
  readonly #run: FdpRunState
  readonly #steps: SingleSteps
  readonly #armed = new ArmedRequests()
  readonly #causes: HitCauses
  readonly #hits = new Map<number, Hit>()
  /** vCPUs whose hit has its answer: the server says "hit" of them until the VM goes on. */
  readonly #answered = new Set<number>()
  #answeredSince = 0
  readonly #queue: BackendEvent[] = []
  readonly #hitOf = new WeakMap<BackendEvent, Hit>()
  #sink: EventSink | undefined
  #poll: { cancel(): void } | undefined
  #eagerUntil = 0
  #failure: MicrovmiError | undefined

  constructor(client: FdpClient, run: FdpRunState) {
    this.#client = client
    this.#run = run
    this.#steps = new SingleSteps(client, run)
    this.#causes = new HitCauses(client, this.#armed)
    run.findEvents = () => this.#find()
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    const isFirst = this.#isIdle
    if (isFirst) this.#becomeListener()
    try {
      if (request.kind === 'singlestep') this.#steps.arm(request, armed)
      else this.#run.whileStopped(() => this.#place(request, armed))
    } catch (error) {
      if (isFirst) this.#client.channel.notes.listen(false)
      throw error
    }
    this.#schedule()
  }

  disarm(armed: number): void {
    const one = this.#armed.get(armed)
    try {
      if (one) this.#run.whileStopped(() => this.#remove(one, armed))
      else this.#steps.disarm(armed)
    } catch (error) {
      if (error instanceof MicrovmiError) this.#failure ??= error
      throw error
    } finally {
      this.#armed.remove(armed)
      if (this.#isIdle) {
        this.#poll?.cancel()
        this.#poll = undefined
        this.#client.channel.notes.listen(false)
      }
    }
  }

  reply(event: BackendEvent): void {
    if (event.kind === 'singlestep') {
      this.#steps.answered()
      return
    }
    const hit = this.#hitOf.get(event)
    if (!hit) return
    this.#hitOf.delete(event)
    this.#answer(hit)
  }

  /** Why breakpoints of this session are still in the VM, if so. */
  get failure(): MicrovmiError | undefined {
    return this.#failure
  }

  get #isIdle(): boolean {
    return this.#armed.size === 0 && !this.#steps.isArmed
  }

  /** There is one flag, which who sees it clears: so there is one listener. */
  #becomeListener(): void {
    const { channel } = this.#client
    channel.exclusively(() => {
      if (channel.notes.listener === 'other') {
        throw new MicrovmiError('BUSY', `${channel.name}: another session listens to its events, and there can be one`)
      }
      channel.notes.listen(true)
    })
  }

  #place(request: InterceptRequest, armed: number): void {
    const placement = placementOf(request, this.#client)
    this.#armed.checkUnambiguous(placement)
    const id = this.#armed.idFor(placement) ?? this.#client.setBreakpoint({ vcpu: 0, isPhysical: true, ...placement })
    if (id < 0) {
      throw new MicrovmiError('HYPERVISOR', `${this.#client.channel.name}: the FDP server set no breakpoint (${id})`)
    }
    this.#client.channel.notes.noteBreakpoint(id, true)
    if (request.kind === 'cr') this.#causes.noteControls()
    this.#armed.add(armed, { request, placement, id })
  }

  #remove(one: Armed, armed: number): void {
    // What has stopped at it meanwhile would be answered by nobody.
    this.#find()
    this.#armed.remove(armed)
    this.#dropQueued(armed)
    if (this.#armed.uses(one.id)) return
    this.#client.unsetBreakpoint(one.id)
    this.#client.channel.notes.noteBreakpoint(one.id, false)
  }

  #dropQueued(armed: number): void {
    for (const event of this.#queue.splice(0)) {
      const left = event.armed.filter((number) => number !== armed)
      const hit = this.#hitOf.get(event)
      if (left.length > 0) {
        const kept: BackendEvent = { ...event, armed: left }
        if (hit) this.#hitOf.set(kept, hit)
        this.#queue.push(kept)
      } else if (hit) {
        this.#answer(hit)
      }
    }
  }

  #schedule(): void {
    if (this.#poll || this.#isIdle) return
    const look = (): void => {
      this.#poll = undefined
      this.#look()
      this.#schedule()
    }
    if (performance.now() < this.#eagerUntil) {
      const immediate = setImmediate(look)
      this.#poll = { cancel: () => clearImmediate(immediate) }
    } else {
      const timer = setTimeout(look, POLL_INTERVAL)
      this.#poll = { cancel: () => clearTimeout(timer) }
    }
  }

  /** Called from the event loop: the only place where events are handed over. */
  #look(): void {
    try {
      this.#client.channel.checkAlive()
      if (this.#client.channel.takeStateChanged()) this.#find()
      const step = this.#hits.size === 0 ? this.#steps.next() : undefined
      if (step) this.#queue.push(step)
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#failure = error
      this.#abandon()
      this.#sink?.fail(error)
      return
    }
    if (this.#queue.length > 0) this.#eagerUntil = performance.now() + EAGER
    for (const event of this.#queue.splice(0)) this.#sink?.deliver(event)
  }

  /** The server does not answer any more. Its breakpoints stay noted, and are taken out when it does. */
  #abandon(): void {
    this.#armed.clear()
    this.#steps.abandon()
    this.#queue.length = 0
    this.#client.channel.notes.listen(false)
  }

  /** Queues events for the vCPUs that stand at a breakpoint. */
  #find(): void {
    if (this.#armed.size === 0 || (this.#client.state() & STATE.breakpointHit) === 0) return
    const { resumes } = this.#client.channel.notes
    if (resumes !== this.#answeredSince) this.#answered.clear()
    this.#answeredSince = resumes
    for (let vcpu = 0; vcpu < this.#client.vcpuCount(); vcpu++) {
      if (this.#hits.has(vcpu) || this.#answered.has(vcpu)) continue
      if ((this.#client.vcpuState(vcpu) & STATE.breakpointHit) === 0) continue
      const { events, step } = this.#causes.of(vcpu)
      this.#begin({ vcpu, step, waiting: events.length }, events)
    }
  }

  #begin(hit: Hit, events: readonly BackendEvent[]): void {
    this.#hits.set(hit.vcpu, hit)
    this.#run.stoppedByEvent()
    for (const event of events) {
      this.#hitOf.set(event, hit)
      this.#queue.push(event)
    }
    if (events.length === 0) this.#finish(hit)
  }

  #answer(hit: Hit): void {
    hit.waiting -= 1
    if (hit.waiting === 0) this.#finish(hit)
  }

  #finish(hit: Hit): void {
    this.#hits.delete(hit.vcpu)
    this.#answered.add(hit.vcpu)
    try {
      if (!hit.step) return
      this.#client.singleStep(hit.vcpu)
      const events = this.#causes.ofStep(hit.vcpu)
      if (events.length > 0) this.#begin({ vcpu: hit.vcpu, step: false, waiting: events.length }, events)
    } finally {
      this.#run.answered()
    }
  }
}
