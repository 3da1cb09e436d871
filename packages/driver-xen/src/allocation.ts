import { badArgument, MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'
import type { GuestMemory } from './guest-memory.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

const KIBIBYTES = PAGE_SIZE / 1024
/** Below 4 GiB there may be devices of the platform's that Xen knows of only when the guest touches them. */
const FIRST = 0x10_0000

/**
 * Pages that the guest's system does not know of, behind all that it has. The limit of the domain's memory is raised by
 * as much, and lowered again.
 */
export class Allocation {
  readonly #xen: Xen
  readonly #domid: number
  readonly #memory: GuestMemory
  readonly #frames = new Set<number>()
  readonly #one = new BigUint64Array(1)

  constructor(xen: Xen, domid: number, memory: GuestMemory) {
    this.#xen = xen
    this.#domid = domid
    this.#memory = memory
  }

  /** The guest-physical address of a new page, all zeros. */
  allocate(): number {
    const frame = Math.max(this.#lastFrame() + 1, FIRST)
    this.#raise(1)
    this.#one[0] = BigInt(frame)
    const { xc } = this.#xen.libraries
    if (xc.domain_populate_physmap_exact(this.#xen.handle, this.#domid, 1, 0, 0, this.#one) < 0) {
      const error = failed('xc_domain_populate_physmap_exact', `frame 0x${frame.toString(16)}`)
      this.#raise(-1)
      const { errno } = error.cause as { errno: number }
      throw errno === ERRNO.ENOMEM || errno === ERRNO.EBUSY
        ? new MicrovmiError('BUSY', 'Xen has no free page: give it memory (xl mem-set 0 …)', { cause: error })
        : error
    }
    this.#frames.add(frame)
    // Xen gives it with what was in it.
    this.#memory.write(frame * PAGE_SIZE, new Uint8Array(PAGE_SIZE))
    return frame * PAGE_SIZE
  }

  free(address: number): void {
    const frame = Math.floor(address / PAGE_SIZE)
    if (!this.#frames.has(frame) || address % PAGE_SIZE !== 0) {
      throw badArgument(`0x${address.toString(16)} is no page that allocate() gave`)
    }
    this.#release(frame)
  }

  /** Takes back what is left. */
  release(): void {
    for (const frame of this.#frames) this.#release(frame)
  }

  #release(frame: number): void {
    // A page that is kept mapped would stay.
    this.#memory.forget(frame * PAGE_SIZE)
    this.#one[0] = BigInt(frame)
    const { xc } = this.#xen.libraries
    if (xc.domain_decrease_reservation_exact(this.#xen.handle, this.#domid, 1, 0, this.#one) < 0) {
      throw failed('xc_domain_decrease_reservation_exact', `frame 0x${frame.toString(16)}`)
    }
    this.#frames.delete(frame)
    this.#raise(-1)
  }

  #lastFrame(): number {
    const { xc } = this.#xen.libraries
    if (xc.domain_maximum_gpfn(this.#xen.handle, this.#domid, this.#one) < 0) {
      throw failed('xc_domain_maximum_gpfn', 'the last page of the domain')
    }
    return Number(this.#one[0])
  }

  /** Raises the limit of the domain's memory by some pages. */
  #raise(pages: number): void {
    const now = this.#xen.domain(this.#domid)?.mostKibibytes
    if (now === undefined) throw new MicrovmiError('VM_GONE', `domain ${this.#domid} has been destroyed`)
    const { xc } = this.#xen.libraries
    if (xc.domain_setmaxmem(this.#xen.handle, this.#domid, now + pages * KIBIBYTES) < 0) {
      throw failed('xc_domain_setmaxmem', `the limit of domain ${this.#domid}`)
    }
  }
}
