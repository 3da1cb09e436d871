import type { DeliveredEvent } from './delivery.ts'
import { MicrovmiError } from './errors.ts'
import type { AbortSignalLike, Intercept, Reply } from './events.ts'

/** Reports (events that stop nothing) that wait for a slow listener at most: a guest must not fill our memory. */
export const REPORT_LIMIT = 65_536

/** How a listener is armed and taken off again: the hub's side. */
export interface Arming {
  arm(): void
  disarm(): void
}

/** A handler as core calls it. */
export type Handler = (event: DeliveredEvent) => Reply | undefined

interface Waiter {
  resolve(result: IteratorResult<DeliveredEvent, undefined>): void
  reject(error: Error): void
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined }

/**
 * The events of one `intercept` call: a queue between the backend's delivery and one loop, or a handler without queue.
 */
export class Listener implements Intercept<DeliveredEvent> {
  readonly ended: Promise<void>
  readonly #arming: Arming
  readonly #handler: Handler | undefined
  readonly #queue: DeliveredEvent[] = []
  /** Events handed out and not known to be answered: held ones, and a loop's current one. */
  readonly #out = new Set<DeliveredEvent>()
  /** The one that the handler or the loop is at. */
  #current: DeliveredEvent | undefined
  #waiter: Waiter | undefined
  #state: 'idle' | 'armed' | 'ended' = 'idle'
  #failure: Error | undefined
  #dropped = 0
  #settle: { resolve(): void; reject(error: unknown): void } = { resolve() {}, reject() {} }
  #stopWatching: (() => void) | undefined

  constructor(arming: Arming, handler?: Handler) {
    this.#arming = arming
    this.#handler = handler
    this.ended = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    // A loop learns of a failure from its own next(); `ended` need not be looked at then.
    if (!handler) this.ended.catch(() => undefined)
  }

  get dropped(): number {
    return this.#dropped
  }

  /** Arms: there is somebody to listen now. */
  start(): void {
    this.#arming.arm()
    this.#state = 'armed'
  }

  /** The backend's event for this listener. */
  deliver(event: DeliveredEvent): void {
    if (this.#state !== 'armed') {
      event.end()
    } else if (this.#handler) {
      this.#handle(event, this.#handler)
    } else if (this.#waiter) {
      const waiter = this.#waiter
      this.#waiter = undefined
      waiter.resolve(this.#handOut(event))
    } else if (event.stops === 'none' && this.#queue.length >= REPORT_LIMIT) {
      this.#dropped += 1
    } else {
      this.#queue.push(event)
    }
  }

  /** The VM has gone: the loop's next step throws this. */
  fail(error: Error): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#stopWatching?.()
    this.#current?.abandon()
    for (const event of [...this.#queue, ...this.#out]) event.abandon()
    this.#queue.length = 0
    this.#out.clear()
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter) waiter.reject(error)
    else this.#failure = error
    this.#settle.reject(error)
  }

  close(): void {
    this.#end()
  }

  [Symbol.dispose](): void {
    this.#end()
  }

  until(signal: AbortSignalLike): this {
    if (signal.aborted) {
      this.close()
    } else if (this.#state !== 'ended') {
      const onAbort = () => this.close()
      signal.addEventListener('abort', onAbort, { once: true })
      const earlier = this.#stopWatching
      this.#stopWatching = () => {
        earlier?.()
        signal.removeEventListener('abort', onAbort)
      }
    }
    return this
  }

  [Symbol.asyncIterator](): AsyncIterator<DeliveredEvent, undefined> {
    if (this.#handler) throw new MicrovmiError('BUSY', 'this intercept has a handler: it receives the events')
    if (this.#state === 'armed') {
      throw new MicrovmiError('BUSY', 'a loop over this intercept is under way: ask for another intercept')
    }
    if (this.#state === 'idle') this.start()
    return {
      next: () => this.#next(),
      return: async () => {
        this.close()
        return DONE
      },
    }
  }

  async #next(): Promise<IteratorResult<DeliveredEvent, undefined>> {
    if (this.#waiter) throw new MicrovmiError('BUSY', 'a step of this loop is under way: wait for it first')
    const last = this.#current
    this.#current = undefined
    last?.pass()
    if (last?.answered) this.#out.delete(last)
    const event = this.#queue.shift()
    if (event) return this.#handOut(event)
    if (this.#failure) {
      const failure = this.#failure
      this.#failure = undefined
      throw failure
    }
    if (this.#state === 'ended') return DONE
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject }
    })
  }

  #handOut(event: DeliveredEvent): IteratorResult<DeliveredEvent, undefined> {
    this.#current = event
    this.#keep(event)
    return { done: false, value: event }
  }

  #handle(event: DeliveredEvent, handler: Handler): void {
    this.#current = event
    try {
      const parts = handler(event)
      if (parts !== undefined) event.reply(parts)
      event.pass()
      this.#current = undefined
      if (!event.answered) this.#keep(event)
    } catch (error) {
      this.#end(error)
    }
  }

  #keep(event: DeliveredEvent): void {
    for (const earlier of this.#out) if (earlier.answered) this.#out.delete(earlier)
    this.#out.add(event)
  }

  /** Lets everything proceed, then disarms: the order in which no response is lost. */
  #end(thrown?: unknown): void {
    if (this.#state === 'ended') return
    const wasArmed = this.#state === 'armed'
    this.#state = 'ended'
    this.#stopWatching?.()
    const waiter = this.#waiter
    this.#waiter = undefined
    const errors: unknown[] = []
    const attempt = (work: () => void) => {
      try {
        work()
      } catch (error) {
        errors.push(error)
      }
    }
    attempt(() => this.#current?.end())
    for (const event of [...this.#out, ...this.#queue]) attempt(() => event.end())
    this.#out.clear()
    this.#queue.length = 0
    if (wasArmed) attempt(() => this.#arming.disarm())
    waiter?.resolve(DONE)
    if (thrown === undefined) this.#settle.resolve()
    else this.#settle.reject(thrown)
    if (errors.length > 0) throw errors[0]
  }
}
