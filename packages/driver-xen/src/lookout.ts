/** Milliseconds that one turn of the event loop is kept at most. */
const TURN = 10
/** Looks between two at the clock, which takes longer than a look. */
const LOOKS = 16
/** So many looks in vain in a row, and there is none for so many wake-ups. */
const MISSES = 8
const REST = 64

/**
 * Looks for the next request for a while before the process sleeps: a wake-up takes longer than most answers. It pays
 * where the guest has a processor of its own; where looks are in vain, there are few of them.
 */
export class Lookout {
  readonly #milliseconds: number
  #misses = 0
  #rest = 0
  #turnEnds = 0

  /** @param microseconds for which to look; 0: never */
  constructor(microseconds: number) {
    this.#milliseconds = microseconds / 1000
  }

  /** A turn of the event loop begins. */
  begin(): void {
    if (this.#milliseconds === 0) return
    this.#turnEnds = performance.now() + TURN
    if (this.#rest > 0) this.#rest -= 1
  }

  /** Whether a request has come while it was looked for. */
  sees(ring: { readonly hasRequest: boolean }): boolean {
    if (this.#milliseconds === 0 || this.#rest > 0) return false
    const start = performance.now()
    if (start > this.#turnEnds) return false
    const end = start + this.#milliseconds
    do {
      for (let look = 0; look < LOOKS; look++) {
        if (!ring.hasRequest) continue
        this.#misses = 0
        return true
      }
    } while (performance.now() < end)
    this.#misses += 1
    if (this.#misses < MISSES) return false
    this.#misses = 0
    this.#rest = REST
    return false
  }
}
