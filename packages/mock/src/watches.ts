import type { EventKind, EventKinds, InterceptRequest } from '@microvmi/core/driver'

/** A request that is armed, under core's number for it. */
export interface Armed<K extends EventKind = EventKind> {
  readonly number: number
  readonly request: Extract<InterceptRequest, { readonly kind: K }>
}

/** What has happened: an event before anybody was found to receive it. */
export type Occurrence<K extends EventKind = EventKind> = {
  [P in K]: { readonly kind: P; readonly fields: EventKinds[P]['event'] }
}[K]

/** The requests that are armed, by kind. */
export class Watches {
  readonly #byKind = new Map<EventKind, Armed[]>()
  readonly #numbers = new Set<number>()

  add(request: InterceptRequest, number: number): void {
    this.#numbers.add(number)
    this.#byKind.set(request.kind, [...(this.#byKind.get(request.kind) ?? []), { number, request }])
  }

  remove(number: number): void {
    this.#numbers.delete(number)
    for (const [kind, armed] of this.#byKind) {
      const left = armed.filter((one) => one.number !== number)
      if (left.length > 0) this.#byKind.set(kind, left)
      else this.#byKind.delete(kind)
    }
  }

  /** Whether the request of this number is armed still. */
  has(number: number): boolean {
    return this.#numbers.has(number)
  }

  /** Those of one kind; undefined for none, which is the usual case. */
  of<K extends EventKind>(kind: K): readonly Armed<K>[] | undefined {
    // `add` files each request under its own kind.
    return this.#byKind.get(kind) as readonly Armed<K>[] | undefined
  }

  /** The numbers of those of a kind that `fits`. */
  matching<K extends EventKind>(kind: K, fits: (request: Armed<K>['request']) => boolean): number[] {
    const numbers: number[] = []
    for (const { number, request } of this.of(kind) ?? []) if (fits(request)) numbers.push(number)
    return numbers
  }
}
