import { MicrovmiError } from '@microvmi/core/driver'
import type { DomainInfo } from './domain-info.ts'
import type { Xen } from './xen.ts'

/** Milliseconds for which a domain that was there is taken to be there: its pages outlive it in our mappings. */
const FRESH = 20
/** Glances in a row for which nobody looks: a look at the clock takes longer than a small read. */
const GLANCES = 64

/** A domain that a session has open: who it is, and whether it still is there. */
export class OpenDomain {
  readonly domid: number
  readonly uuid: string
  readonly name: string
  readonly #xen: Xen
  #seenAt = 0
  #glances = 0
  #timer: NodeJS.Timeout | undefined

  constructor(xen: Xen, { domid, uuid }: DomainInfo) {
    this.#xen = xen
    this.domid = domid
    this.uuid = uuid
    this.name = xen.nameOf(domid)
  }

  /** Why the domain is of no use any more, if so. */
  gone(): MicrovmiError | undefined {
    try {
      this.info()
      return undefined
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'VM_GONE') return error
      throw error
    }
  }

  /** Throws when the domain has gone; asks Xen now and then. */
  look(): void {
    if (performance.now() - this.#seenAt > FRESH) this.info()
  }

  /** `look` for what is called often and takes microseconds: one in some of them looks, and the first after a while. */
  glance(): void {
    if (this.#glances > 0) {
      this.#glances -= 1
      return
    }
    this.look()
    this.#glances = GLANCES
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#glances = 0
    }, FRESH).unref()
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  /** What Xen tells now. A domain's number may be another one's by now. */
  info(): DomainInfo {
    const info = this.#xen.domain(this.domid)
    if (!info || info.uuid !== this.uuid || info.isDying) {
      throw new MicrovmiError('VM_GONE', `domain ${this.domid} (${this.name}) has been destroyed`)
    }
    this.#seenAt = performance.now()
    return info
  }
}
