import type { BackendEvent, EventBackend } from './backend.ts'
import { checkReply } from './checks.ts'
import { badArgument, MicrovmiError } from './errors.ts'
import type { EventBase, Reply } from './events.ts'
import type { Registers } from './registers.ts'
import type { Session } from './session.ts'

/** An answer without parts: the guest goes on. */
const NO_PARTS: Reply = Object.freeze({})

/** One event of the backend, on its way to every intercept that asked for it. Answered when all of them have. */
export class Delivery {
  readonly event: BackendEvent
  readonly session: Session
  readonly #events: EventBackend
  #waitingFor: number
  #parts = NO_PARTS
  #registers: Registers | undefined

  constructor(event: BackendEvent, listeners: number, events: EventBackend, session: Session) {
    this.event = event
    this.session = session
    this.#events = events
    this.#waitingFor = listeners
  }

  get registers(): Registers | undefined {
    if (this.#waitingFor > 0) this.#registers ??= this.event.registers?.()
    return this.#registers
  }

  /** One listener's answer; where two give the same part, the later one counts. */
  answer(parts: Reply): void {
    if (parts !== NO_PARTS) this.#parts = { ...this.#parts, ...parts }
    this.#waitingFor -= 1
    if (this.#waitingFor === 0 && this.event.stops !== 'none') this.#events.reply(this.event, this.#parts)
  }
}

/** An event as one listener sees it. The kind's own fields are copied onto it. */
export class DeliveredEvent implements EventBase {
  readonly kind: string
  readonly vcpu: number
  readonly stops: 'vcpu' | 'vm' | 'none'
  readonly complete: boolean
  readonly #delivery: Delivery
  #state: 'waiting' | 'held' | 'answered' | 'ended' = 'waiting'

  constructor(delivery: Delivery) {
    const { kind, vcpu, stops, complete, fields } = delivery.event
    this.#delivery = delivery
    this.kind = kind
    this.vcpu = vcpu
    this.stops = stops
    this.complete = complete
    Object.assign(this, fields)
  }

  get registers(): Registers | undefined {
    return this.#delivery.registers
  }

  get answered(): boolean {
    return this.#state === 'answered' || this.#state === 'ended'
  }

  hold(): void {
    this.#checkOpen()
    if (this.stops !== 'none') this.#state = 'held'
  }

  reply(parts: Reply = {}): void {
    this.#checkOpen()
    if (this.stops === 'none')
      throw badArgument(`this ${this.kind} event is a report: it stops nothing and takes no reply`)
    checkReply(parts, this.#delivery.session)
    this.#state = 'answered'
    this.#delivery.answer(withoutRefusals(parts))
  }

  /** The listener went on: what it has neither answered nor held proceeds. */
  pass(): void {
    if (this.#state !== 'waiting') return
    this.#state = 'answered'
    this.#delivery.answer(NO_PARTS)
  }

  /** The intercept ended: what is unanswered, held or not, proceeds. */
  end(): void {
    if (this.answered) return
    this.#state = 'ended'
    this.#delivery.answer(NO_PARTS)
  }

  /** The VM has gone: there is nobody to answer to. */
  abandon(): void {
    if (!this.answered) this.#state = 'ended'
  }

  #checkOpen(): void {
    if (this.#state === 'ended') throw new MicrovmiError('CLOSED', 'the intercept of this event has ended')
    if (this.#state === 'answered') {
      throw new MicrovmiError('ALREADY_ANSWERED', `this ${this.kind} event of vcpu ${this.vcpu} has its answer`)
    }
  }
}

/** `{ deny: suspicious }` says nothing where it is false. */
function withoutRefusals(parts: Reply): Reply {
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== false && value !== undefined))
}
