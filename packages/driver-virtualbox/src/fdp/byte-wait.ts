import { sleepSync } from './sleep.ts'

/** Looks before the clock is looked at: some 50 µs, more than most replies take. */
const QUICK_LOOKS = 5000
/** Looks between two looks at the clock, and how many such rounds there are before the first sleep: about 1 ms. */
const LOOKS = 1000
const ROUNDS = 50
/** Milliseconds of one sleep. */
const NAP = 0.05

/**
 * Waits for bytes of shared memory to become zero or something else, within the time that one exchange may take. The
 * clock starts at the first wait that is not over at once: most exchanges never look at it.
 */
export class ByteWait {
  readonly #bytes: Uint8Array
  readonly #timeout: number
  readonly #checkPeer: () => void
  #deadline: number | undefined

  /**
   * @param timeout milliseconds that all waits since `begin` may take together
   * @param checkPeer called now and then in a long wait; throws when nobody is there any more to end it
   */
  constructor(bytes: Uint8Array, timeout: number, checkPeer: () => void) {
    this.#bytes = bytes
    this.#timeout = timeout
    this.#checkPeer = checkPeer
  }

  /** A new exchange begins. */
  begin(): void {
    this.#deadline = undefined
  }

  /** Whether the byte at `offset` became set (not 0), or clear, in time. */
  until(offset: number, isSet: boolean): boolean {
    return this.#looks(offset, isSet, QUICK_LOOKS) || this.#slowly(offset, isSet)
  }

  /** The same within `milliseconds`, whatever is left for the exchange. */
  untilWithin(offset: number, isSet: boolean, milliseconds: number): boolean {
    const kept = this.#deadline
    this.#deadline = performance.now() + milliseconds
    try {
      return this.until(offset, isSet)
    } finally {
      this.#deadline = kept
    }
  }

  #looks(offset: number, isSet: boolean, looks: number): boolean {
    const bytes = this.#bytes
    for (let look = 0; look < looks; look++) if ((Atomics.load(bytes, offset) !== 0) === isSet) return true
    return false
  }

  #slowly(offset: number, isSet: boolean): boolean {
    this.#deadline ??= performance.now() + this.#timeout
    for (let round = 0; ; round++) {
      if (this.#looks(offset, isSet, LOOKS)) return true
      if (performance.now() >= this.#deadline) return false
      if (round < ROUNDS) continue
      this.#checkPeer()
      sleepSync(NAP)
    }
  }
}
