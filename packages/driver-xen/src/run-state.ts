import type { RunBackend, RunState } from '@microvmi/core/driver'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** Pauses that somebody else may have heaped up. */
const PAUSE_LIMIT = 255

/** Pausing: Xen counts who has paused a domain, so that each session ends its own pause only. */
export class XenRunState implements RunBackend {
  readonly #xen: Xen
  readonly #domid: number
  readonly #isPaused: () => boolean
  #isOurs = false

  constructor(xen: Xen, domid: number, isPaused: () => boolean) {
    this.#xen = xen
    this.#domid = domid
    this.#isPaused = isPaused
  }

  pause(): void {
    this.#do('domain_pause')
    this.#isOurs = true
  }

  resume(): void {
    if (!this.#isOurs) return
    this.#isOurs = false
    this.#do('domain_unpause')
  }

  state(): RunState {
    return this.#isPaused() ? 'paused' : 'running'
  }

  setState(state: RunState): void {
    if (state === 'paused') {
      if (!this.#isPaused()) this.#do('domain_pause')
      return
    }
    for (let count = 0; count < PAUSE_LIMIT && this.#isPaused(); count++) this.#do('domain_unpause')
  }

  #do(call: 'domain_pause' | 'domain_unpause'): void {
    if (this.#xen.libraries.xc[call](this.#xen.handle, this.#domid) < 0) {
      throw failed(`xc_${call}`, `domain ${this.#domid}`)
    }
  }
}
