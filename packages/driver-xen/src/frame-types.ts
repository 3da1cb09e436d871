import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** Frames that one hypercall tells of (Xen, arch/x86/domctl.c, XEN_DOMCTL_getpageframeinfo3: 1024 at most). */
export const FRAME_BATCH = 1024
/** From here on, types mean that no memory is there: XEN_DOMCTL_PFINFO_BROKEN, _XALLOC and _XTAB (domctl.h). */
const NO_MEMORY = 0xd
const TYPE_SHIFT = 28

/**
 * Which frames are a domain's memory: Xen is asked frame by frame. Frames are guest-physical ones, and of PV domains
 * machine frames, of which Xen counts only those as the domain's that it owns (asm-x86/p2m.h, get_page_from_gfn()).
 */
export class FrameTypes {
  readonly #xen: Xen
  readonly #domid: number
  readonly #frames = new BigUint64Array(FRAME_BATCH)
  readonly #words = new Uint32Array(this.#frames.buffer)

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
  }

  /** Sets a byte to 1 for each frame from `first` on that is memory: at most `FRAME_BATCH`. */
  markMemory(first: number, isThere: Uint8Array): void {
    // Halves of 32 bits: a frame's number is below 2^32 (16 TiB of memory), its type in the lower half.
    const words = this.#words
    const count = isThere.length
    for (let index = 0; index < count; index++) {
      words[2 * index] = first + index
      words[2 * index + 1] = 0
    }
    if (this.#xen.libraries.xc.get_pfn_type_batch(this.#xen.handle, this.#domid, count, this.#frames) < 0) {
      throw failed('xc_get_pfn_type_batch', 'the memory map')
    }
    for (let index = 0; index < count; index++) {
      if ((words[2 * index] ?? 0) >>> TYPE_SHIFT < NO_MEMORY) isThere[index] = 1
    }
  }
}
