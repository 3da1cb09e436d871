import type { BackendEvent, EventBackend } from './backend.ts'
import type { Capability } from './capability.ts'
import { DeliveredEvent, Delivery } from './delivery.ts'
import { badArgument } from './errors.ts'
import type { InterceptRequest } from './events.ts'
import { type Handler, Listener } from './listener.ts'
import { partOf, type Session } from './session.ts'

const EXAMPLE = "{ kind: 'cr', register: 'cr3' }"

/** A request that is armed in the backend, once for all listeners that ask the same. */
interface Armed {
  readonly number: number
  readonly key: string
  /** Replaced when it changes, never altered: a delivery goes through it while handlers end and begin intercepts. */
  listeners: readonly Listener[]
}

/** All intercepts of one Vm: which requests are armed, and who listens to which. */
export class Intercepts {
  readonly #session: Session
  readonly #byKey = new Map<string, Armed>()
  readonly #byNumber = new Map<number, Armed>()
  readonly #open = new Set<Listener>()
  #events: EventBackend | undefined
  #nextNumber = 1

  constructor(session: Session) {
    this.#session = session
  }

  /** `vm.intercept`: requests as arguments, or one list and a handler. */
  create(args: readonly unknown[]): Listener {
    this.#session.check()
    const last = args.at(-1)
    const handler = typeof last === 'function' ? (last as Handler) : undefined
    const requests = (handler ? args.slice(0, -1) : args).flat() as InterceptRequest[]
    if (requests.length === 0) throw badArgument(`intercept takes at least one request, for example ${EXAMPLE}`)
    for (const request of requests) this.#check(request)
    const listener: Listener = new Listener(
      {
        arm: () => this.#arm(requests, listener),
        disarm: () => {
          this.#open.delete(listener)
          this.#disarm(listener)
        },
      },
      handler,
    )
    if (handler) listener.start()
    return listener
  }

  /** Ends every intercept: all that waits proceeds. */
  closeAll(): void {
    const errors: unknown[] = []
    for (const listener of [...this.#open]) {
      try {
        listener.close()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }

  #check(request: InterceptRequest): void {
    if (typeof request !== 'object' || request === null || typeof request.kind !== 'string') {
      throw badArgument(`an intercept request is an object with a kind, for example ${EXAMPLE}`)
    }
    this.#session.need(`events.${request.kind}` as Capability)
  }

  #arm(requests: readonly InterceptRequest[], listener: Listener): void {
    this.#session.check()
    const events = this.#listen()
    try {
      for (const request of requests) {
        const key = keyOf(request)
        let armed = this.#byKey.get(key)
        if (!armed) {
          armed = { number: this.#nextNumber++, key, listeners: [] }
          events.arm(request, armed.number)
          this.#byKey.set(key, armed)
          this.#byNumber.set(armed.number, armed)
        }
        if (!armed.listeners.includes(listener)) armed.listeners = [...armed.listeners, listener]
      }
    } catch (error) {
      this.#disarm(listener)
      throw error
    }
    this.#open.add(listener)
  }

  #disarm(listener: Listener): void {
    const errors: unknown[] = []
    for (const armed of [...this.#byKey.values()]) {
      if (!armed.listeners.includes(listener)) continue
      armed.listeners = armed.listeners.filter((one) => one !== listener)
      if (armed.listeners.length > 0) continue
      this.#byKey.delete(armed.key)
      this.#byNumber.delete(armed.number)
      try {
        this.#events?.disarm(armed.number)
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }

  #listen(): EventBackend {
    if (this.#events) return this.#events
    const events = partOf(this.#session.backend.events, 'events.cr', this.#session)
    events.listen({ deliver: (event) => this.#deliver(event, events), fail: (error) => this.#fail(error) })
    this.#events = events
    return events
  }

  #deliver(event: BackendEvent, events: EventBackend): void {
    const listeners = this.#listenersOf(event.armed)
    if (listeners.length === 0) {
      if (event.stops !== 'none') events.reply(event, {})
      return
    }
    const delivery = new Delivery(event, listeners.length, events, this.#session)
    for (const listener of listeners) listener.deliver(new DeliveredEvent(delivery))
  }

  /** Each once, whichever of its requests an event answers to; as they are now, whatever their handlers do. */
  #listenersOf(numbers: readonly number[]): readonly Listener[] {
    const [first] = numbers
    if (first === undefined) return []
    if (numbers.length === 1) return this.#byNumber.get(first)?.listeners ?? []
    const listeners = new Set<Listener>()
    for (const number of numbers) {
      for (const listener of this.#byNumber.get(number)?.listeners ?? []) listeners.add(listener)
    }
    return [...listeners]
  }

  #fail(error: Error): void {
    const listeners = [...this.#open]
    this.#open.clear()
    this.#byKey.clear()
    this.#byNumber.clear()
    for (const listener of listeners) listener.fail(error)
  }
}

/** Equal requests have equal keys, in whatever order their fields were written. */
function keyOf(request: InterceptRequest): string {
  const fields = Object.entries(request)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify(fields, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value))
}
