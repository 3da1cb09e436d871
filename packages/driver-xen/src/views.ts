import { badArgument, MicrovmiError, type ViewBackend } from '@microvmi/core/driver'
import type { PageRights } from '@microvmi/page-rights'
import type { SessionNote } from './session-note.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

/** XENMEM_access_rwx (memory.h). */
const ALL = 7
/** INVALID_GFN: what a frame is remapped to that shows its own page again. */
const OWN_PAGE = 2n ** 64n - 1n

/** What Xen says of a domain's views. */
export type ViewState = 'off' | 'on' | 'not configured' | 'not there'

/** Whether a domain has views (altp2m), and whether somebody uses them. */
export function viewStateOf(xen: Xen, domid: number): ViewState {
  const state = new Uint8Array(1)
  if (xen.libraries.xc.altp2m_get_domain_state(xen.handle, domid, state) >= 0) return state[0] === 0 ? 'off' : 'on'
  // do_altp2m_op() (Xen, arch/x86/hvm/hvm.c): EINVAL where the domain's configuration has no altp2m.
  const { errno } = failed('xc_altp2m_get_domain_state', '').cause as { errno: number }
  return errno === ERRNO.EINVAL ? 'not configured' : 'not there'
}

/** Puts vCPUs back into the guest's own, and forgets all views. */
export function turnOffViews(xen: Xen, domid: number): void {
  setState(xen, domid, false)
}

function setState(xen: Xen, domid: number, isOn: boolean): void {
  if (xen.libraries.xc.altp2m_set_domain_state(xen.handle, domid, isOn) >= 0) return
  throw failed('xc_altp2m_set_domain_state', `the views of domain ${domid}`)
}

/**
 * Views of a domain's memory: Xen's altp2m. Once they are on, the guest runs in a view of ours that stands for its own,
 * number 0 of the contract's; Xen's own number 0 has all rights and no other page, and is where vCPUs step over what is
 * guarded or remapped.
 */
export class XenViews implements ViewBackend {
  /** Xen's number of the view in which nothing is guarded. */
  static readonly open = 0
  readonly canBeOn: boolean
  readonly #xen: Xen
  readonly #domid: number
  readonly #note: SessionNote
  readonly #vcpus: () => number
  /** Xen's number of the view that stands for the guest's own. */
  #base: number | undefined
  /** What each other view shows instead of a frame's own page. */
  readonly #views = new Map<number, Map<number, number>>()
  #rights: PageRights | undefined
  #beforeMove: (number: number) => void = () => {}
  #backOf: (vcpu: number) => number | undefined = () => undefined

  constructor(xen: Xen, domid: number, state: ViewState, note: SessionNote, vcpus: () => number) {
    this.#xen = xen
    this.#domid = domid
    this.canBeOn = state === 'off' || state === 'on'
    this.#note = note
    this.#vcpus = vcpus
  }

  /** The rights of pages need to know of views, and views of rights. */
  useRights(rights: PageRights): void {
    this.#rights = rights
  }

  /**
   * @param beforeMove is called before all vCPUs are put in a view of Xen's, while the domain stands still
   * @param backOf the view that a vCPU goes to behind the step that is before it
   */
  useSteps(beforeMove: (number: number) => void, backOf: (vcpu: number) => number | undefined): void {
    this.#beforeMove = beforeMove
    this.#backOf = backOf
  }

  get isOn(): boolean {
    return this.#base !== undefined
  }

  /** Puts the guest into a view that stands for its own. Throws `BUSY` where somebody else uses views. */
  enable(): void {
    if (this.#base !== undefined) return
    if (viewStateOf(this.#xen, this.#domid) === 'on') {
      const advice = 'end the program that uses them; if that was killed, reboot the domain'
      throw new MicrovmiError('BUSY', `somebody else has made views of domain ${this.#domid}: ${advice}`)
    }
    this.#note.begin('views')
    setState(this.#xen, this.#domid, true)
    try {
      const base = this.#make()
      this.#switchAll(base)
      this.#base = base
    } catch (error) {
      turnOffViews(this.#xen, this.#domid)
      this.#note.end('views')
      throw error
    }
  }

  create(): number {
    this.enable()
    const view = this.#make()
    this.#views.set(view, new Map())
    try {
      this.#rights?.copyTo(view)
    } catch (error) {
      this.destroy(view)
      throw error
    }
    return view
  }

  /** vCPUs that are in it go back: all of them, as Xen switches them together. */
  destroy(view: number): void {
    this.#checkOurs(view)
    const isUsed = Array.from({ length: this.#vcpus() }, (_, vcpu) => this.#isIn(vcpu, view)).includes(true)
    if (isUsed) this.#switchAll(this.numberOf(0))
    const { xc } = this.#xen.libraries
    if (xc.altp2m_destroy_view(this.#xen.handle, this.#domid, view) < 0) {
      throw failed('xc_altp2m_destroy_view', `view ${view}`)
    }
    this.#views.delete(view)
    this.#rights?.forget(view)
  }

  switch(view: number, vcpu: number | undefined): void {
    this.check(view)
    if (vcpu !== undefined && this.#vcpus() > 1) {
      const advice = 'put one in a view by the reply to its event, or leave the vCPU out'
      throw new MicrovmiError('UNSUPPORTED', `Xen switches the views of all vCPUs together: ${advice}`)
    }
    if (this.isOn) this.#switchAll(this.numberOf(view))
  }

  remap(view: number, gfn: number, to: number | undefined): void {
    this.#checkOurs(view)
    const shown = to === gfn ? undefined : to
    const { xc } = this.#xen.libraries
    const number = shown === undefined ? OWN_PAGE : BigInt(shown)
    if (xc.altp2m_change_gfn(this.#xen.handle, this.#domid, view, BigInt(gfn), number) < 0) {
      throw failed('xc_altp2m_change_gfn', `frame 0x${gfn.toString(16)} of view ${view}`)
    }
    if (shown === undefined) this.#views.get(view)?.delete(gfn)
    else this.#views.get(view)?.set(gfn, shown)
    // The entry is a new one, with all rights.
    this.#rights?.restore(view, gfn)
  }

  /** Throws `BAD_ARGUMENT` for a view that is not there. */
  check(view: number): void {
    if (view === 0 || this.#views.has(view)) return
    throw badArgument(`view ${view} is not there; there are ${[0, ...this.#views.keys()].join(', ')}`)
  }

  /** Xen's number of a view of the contract's. */
  numberOf(view: number): number {
    return view === 0 ? (this.#base ?? XenViews.open) : view
  }

  /** The contract's number of a view of Xen's. */
  named(number: number): number {
    return this.#views.has(number) ? number : 0
  }

  /** The frame whose page a view of Xen's shows for a frame. */
  shown(number: number, gfn: number): number {
    return this.#views.get(number)?.get(gfn) ?? gfn
  }

  /** The view of Xen's that a vCPU is in now. */
  viewOf(vcpu: number): number {
    const view = new Uint16Array(1)
    const { xc } = this.#xen.libraries
    if (xc.altp2m_get_vcpu_p2m_idx(this.#xen.handle, this.#domid, vcpu, view) < 0) {
      throw failed('xc_altp2m_get_vcpu_p2m_idx', `the view of vCPU ${vcpu}`)
    }
    return view[0] ?? 0
  }

  /** Whether a vCPU is in a view, or will be when it has stepped. */
  #isIn(vcpu: number, view: number): boolean {
    return this.viewOf(vcpu) === view || this.#backOf(vcpu) === view
  }

  /** As the guest was before: Xen puts its vCPUs back, and forgets all views. */
  release(): void {
    if (this.#base === undefined) return
    this.#base = undefined
    this.#views.clear()
    turnOffViews(this.#xen, this.#domid)
    this.#note.end('views')
  }

  #make(): number {
    const view = new Uint16Array(1)
    if (this.#xen.libraries.xc.altp2m_create_view(this.#xen.handle, this.#domid, ALL, view) >= 0) return view[0] ?? 0
    const error = failed('xc_altp2m_create_view', `a view of domain ${this.#domid}`)
    // p2m_init_next_altp2m() (Xen, arch/x86/mm/p2m.c): MAX_ALTP2M is 10, two of which are needed for the guest's own.
    const isFull = (error.cause as { errno: number }).errno === ERRNO.EINVAL
    throw isFull ? new MicrovmiError('BUSY', 'Xen has no more views: destroy one first', { cause: error }) : error
  }

  #switchAll(number: number): void {
    const { xc } = this.#xen.libraries
    const { handle } = this.#xen
    if (xc.domain_pause(handle, this.#domid) < 0) throw failed('xc_domain_pause', `domain ${this.#domid}`)
    try {
      this.#beforeMove(number)
      if (xc.altp2m_switch_to_view(handle, this.#domid, number) >= 0) return
      throw failed('xc_altp2m_switch_to_view', `view ${number} of domain ${this.#domid}`)
    } finally {
      xc.domain_unpause(handle, this.#domid)
    }
  }

  #checkOurs(view: number): void {
    this.check(view)
    if (view === 0) throw badArgument("view 0 is the guest's own: it stays as it is")
  }
}
