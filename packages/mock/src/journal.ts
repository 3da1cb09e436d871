import type { EventKind } from '@microvmi/core/driver'
import type { Occurrence } from './watches.ts'

/** Something that the guest did, whether or not anybody watched: what observations are compared with. */
export type JournalEntry<K extends EventKind = EventKind> = Occurrence<K> & {
  readonly vcpu: number
  /** The vCPU's clock: instructions since it began. */
  readonly clock: number
  /** Canonical address of the instruction, or of the next one where it comes behind. */
  readonly rip: bigint
}

/** What the guest did: the newest entries, and how often of each kind since the beginning. */
export class Journal {
  readonly #limit: number
  #entries: JournalEntry[] = []
  readonly #counts = new Map<EventKind, number>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Oldest first. */
  get entries(): readonly JournalEntry[] {
    if (this.#entries.length > this.#limit) this.#entries = this.#entries.slice(-this.#limit)
    return this.#entries
  }

  add(entry: JournalEntry): void {
    this.#counts.set(entry.kind, this.count(entry.kind) + 1)
    if (this.#limit === 0) return
    this.#entries.push(entry)
    // Cut now and then, not at each entry.
    if (this.#entries.length >= 2 * this.#limit) this.#entries = this.#entries.slice(-this.#limit)
  }

  count(kind: EventKind): number {
    return this.#counts.get(kind) ?? 0
  }
}
