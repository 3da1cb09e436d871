import type { InterceptRequest, MicrovmiError } from '@microvmi/core/driver'
import { DomainWatch } from './domain-watch.ts'
import { Monitor } from './monitor.ts'
import type { SessionNote } from './session-note.ts'
import { Settings } from './settings.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** What a domain's monitor is used with. */
export interface MonitoredDomain {
  readonly domid: number
  readonly note: SessionNote
  /** Whether vCPUs can be stepped. */
  readonly canStep: boolean
  /** Why the domain is of no use any more, if so. */
  readonly gone: () => MicrovmiError | undefined
}

/** A domain's monitor while something needs it, and what it was told to report. */
export class MonitorSession {
  readonly #xen: Xen
  readonly #domain: MonitoredDomain
  readonly #wake: () => void
  readonly #look: () => void
  #settings: Settings
  #monitor: Monitor | undefined
  #watch: DomainWatch | undefined

  /**
   * @param wake is called on the event loop when there may be requests
   * @param look is called when a domain has been released, perhaps this one
   */
  constructor(xen: Xen, domain: MonitoredDomain, wake: () => void, look: () => void) {
    this.#xen = xen
    this.#domain = domain
    this.#wake = wake
    this.#look = look
    this.#settings = this.#fresh()
  }

  /** The monitor, where it is on. */
  get monitor(): Monitor | undefined {
    return this.#monitor
  }

  /** Turns the monitor on. Throws `BUSY` where another program has it. */
  begin(): Monitor {
    this.#monitor ??= new Monitor(this.#xen, this.#domain.domid, this.#domain.note, this.#wake)
    this.#watch ??= new DomainWatch(this.#xen, this.#look)
    return this.#monitor
  }

  /** Whether something that is reported now would not be any more. */
  losesWith(requests: readonly InterceptRequest[], isHeld: boolean): boolean {
    return this.#settings.losesWith(requests, isHeld)
  }

  /** Has Xen report what these requests need. Throws, with all as it was before, what it refuses. */
  report(requests: readonly InterceptRequest[], isHeld: boolean): void {
    this.#settings.apply(requests, isHeld)
  }

  /** Does `work` while the domain stands still. Pauses are counted by Xen: this is one of our own. */
  whileStill<T>(work: () => T): T {
    this.#pause('domain_pause')
    try {
      return work()
    } finally {
      this.#pause('domain_unpause')
    }
  }

  /** Gives the monitor back, and with it all that it was told to report. */
  end(): void {
    const monitor = this.#monitor
    this.#monitor = undefined
    this.#settings = this.#fresh()
    monitor?.close()
  }

  close(): void {
    this.#watch?.close()
    this.#watch = undefined
    this.end()
  }

  #fresh(): Settings {
    return new Settings(this.#xen, this.#domain.domid, this.#domain.canStep)
  }

  #pause(call: 'domain_pause' | 'domain_unpause'): void {
    const { xc } = this.#xen.libraries
    if (xc[call](this.#xen.handle, this.#domain.domid) < 0 && !this.#domain.gone()) {
      throw failed(`xc_${call}`, `domain ${this.#domain.domid}`)
    }
  }
}
