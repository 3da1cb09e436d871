import type { RunBackend } from './backend.ts'
import type { PauseLease } from './capability.ts'

/** The pause leases of one Vm: the backend pauses for the first and resumes after the last. */
export class PauseLeases {
  readonly #running: RunBackend
  readonly #held = new Set<object>()

  constructor(running: RunBackend) {
    this.#running = running
  }

  get held(): number {
    return this.#held.size
  }

  take(): PauseLease {
    if (this.#held.size === 0) this.#running.pause()
    const end = (): void => {
      if (this.#held.delete(lease) && this.#held.size === 0) this.#running.resume()
    }
    const lease: PauseLease = { end, [Symbol.dispose]: end }
    this.#held.add(lease)
    return lease
  }

  /** Ends every lease. */
  endAll(): void {
    if (this.#held.size === 0) return
    this.#held.clear()
    this.#running.resume()
  }
}
