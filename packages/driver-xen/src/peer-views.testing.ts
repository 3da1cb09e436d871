import type { Libraries } from './library-calls.ts'
import { ERRNO } from './xen-errors.ts'

/** MAX_ALTP2M (Xen, asm-x86/domain.h, 4.17). */
const MOST_VIEWS = 10
const ALL = 7

/** A vCPU, as far as Intel's processors have more than AMD's. */
export interface PeerSteps {
  view: number
  isStepping: boolean
  /** The view that it goes to behind the next step, without a request. */
  fast: number | undefined
}

/** Rights of pages, views and steps of a domain of the peer's, as Xen was seen to have them on an Intel processor. */
export class PeerViews {
  isOn = false
  /** Rights by frame, and frames that show another page, by view. */
  readonly views = new Map<number, { readonly rights: Map<number, number>; readonly shown: Map<number, number> }>()
  readonly host = new Map<number, number>()
  readonly vcpus: readonly PeerSteps[]

  constructor(vcpus: number) {
    this.vcpus = Array.from({ length: vcpus }, () => ({ view: 0, isStepping: false, fast: undefined }))
  }

  setState(isOn: boolean): number {
    this.isOn = isOn
    this.views.clear()
    if (isOn) this.#make(0)
    for (const vcpu of this.vcpus) vcpu.view = 0
    return 0
  }

  create(): number | undefined {
    const number = Array.from({ length: MOST_VIEWS }, (_, index) => index).find((index) => !this.views.has(index))
    if (number !== undefined) this.#make(number)
    return number
  }

  switchAll(number: number): boolean {
    if (!this.views.has(number)) return false
    for (const vcpu of this.vcpus) vcpu.view = number
    return true
  }

  /** The rights of a frame as a vCPU meets them. */
  rightsOf(vcpu: number, frame: number): number {
    const own = this.isOn ? this.views.get(this.vcpus[vcpu]?.view ?? 0)?.rights : this.host
    return own?.get(frame) ?? ALL
  }

  /** A vCPU executes an instruction. Whether Xen tells of it. */
  step(vcpu: number): boolean {
    const one = this.vcpus[vcpu]
    if (!one?.isStepping) return false
    if (one.fast === undefined) return true
    one.view = one.fast
    one.isStepping = false
    one.fast = undefined
    return false
  }

  #make(number: number): void {
    this.views.set(number, { rights: new Map(), shown: new Map() })
  }
}

/** Runs a call on a domain that is there, and sets errno. */
export type On = (
  call: string,
  domid: number,
  run: (views: PeerViews, fail: (errno: number) => number) => number,
) => number

/** The library's calls for all that. */
export function viewCalls(on: On) {
  const setAll = (rights: Map<number, number>, access: Uint8Array, frames: BigUint64Array, count: number) => {
    for (let index = 0; index < count; index++) rights.set(Number(frames[index]), access[index] ?? 0)
    return 0
  }
  return {
    get_mem_access: (_xch, domid) => on('xc_get_mem_access', domid, () => 0),
    set_mem_access_multi: (_xch, domid, access, frames, count) =>
      on('xc_set_mem_access_multi', domid, ({ host }) => setAll(host, access, frames, count)),
    altp2m_get_domain_state: (_xch, domid, into) =>
      on('xc_altp2m_get_domain_state', domid, ({ isOn }) => {
        into[0] = Number(isOn)
        return 0
      }),
    altp2m_set_domain_state: (_xch, domid, isOn) =>
      on('xc_altp2m_set_domain_state', domid, (views) => views.setState(isOn)),
    altp2m_create_view: (_xch, domid, _access, into) =>
      on('xc_altp2m_create_view', domid, (views, fail) => {
        const number = views.create()
        if (number === undefined) return fail(ERRNO.EINVAL)
        into[0] = number
        return 0
      }),
    altp2m_destroy_view: (_xch, domid, number) =>
      on('xc_altp2m_destroy_view', domid, ({ views, vcpus }, fail) => {
        if (vcpus.some(({ view }) => view === number)) return fail(ERRNO.EBUSY)
        views.delete(number)
        return 0
      }),
    altp2m_switch_to_view: (_xch, domid, number) =>
      on('xc_altp2m_switch_to_view', domid, (views, fail) => (views.switchAll(number) ? 0 : fail(ERRNO.EINVAL))),
    altp2m_set_mem_access_multi: (_xch, domid, number, access, frames, count) =>
      on('xc_altp2m_set_mem_access_multi', domid, ({ views }, fail) => {
        const view = views.get(number)
        return view ? setAll(view.rights, access, frames, count) : fail(ERRNO.EINVAL)
      }),
    altp2m_change_gfn: (_xch, domid, number, from, to) =>
      on('xc_altp2m_change_gfn', domid, ({ views }) => {
        const view = views.get(number)
        // A new entry, with all rights.
        view?.rights.delete(Number(from))
        if (to === 2n ** 64n - 1n) view?.shown.delete(Number(from))
        else view?.shown.set(Number(from), Number(to))
        return 0
      }),
    altp2m_get_vcpu_p2m_idx: (_xch, domid, vcpu, into) =>
      on('xc_altp2m_get_vcpu_p2m_idx', domid, ({ vcpus }) => {
        into[0] = vcpus[vcpu]?.view ?? 0
        return 0
      }),
    domain_debug_control: (_xch, domid, operation, vcpu) =>
      on('xc_domain_debug_control', domid, ({ vcpus }) => {
        const one = vcpus[vcpu]
        if (one) {
          one.isStepping = operation === 1
          if (operation === 0) one.fast = undefined
        }
        return 0
      }),
  } satisfies Partial<Libraries['xc']>
}
