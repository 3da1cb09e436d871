import { type Access, badAddress, MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'
import { ALL_RIGHTS, accessOf, bitsOf, RIGHT } from './access.ts'

/** What a driver does for its pages. */
export interface PageRightsOf {
  /** The first guest-physical address of a range that is not guest memory. */
  firstMissing(address: number, length: number): number | undefined
  /**
   * Gives pages their rights, as bits, in a view (0: the guest's own). `frames` and `rights` go together. Throws where
   * one of them cannot be given.
   */
  set(view: number, frames: readonly number[], rights: readonly number[]): void
}

/** What is asked of one page: rights that the app has set, and accesses that intercepts want to see. */
interface Page {
  rights: number
  /** By the intercept's number. */
  readonly guards: Map<number, number>
}

/**
 * Second-level rights of pages, by view. Two sources make them: `setAccess`, and intercepts of accesses; the hypervisor
 * is told of both together.
 */
export class PageRights {
  readonly #of: PageRightsOf
  readonly #views = new Map<number, Map<number, Page>>()
  /** Views beside the guest's own. */
  readonly #others = new Set<number>()
  /** Intercepts that hold in every view, also in later ones. */
  readonly #everywhere = new Set<number>()

  constructor(of: PageRightsOf) {
    this.#of = of
  }

  /** Whether any page has less than all rights because of us. */
  get isEmpty(): boolean {
    return this.#views.size === 0
  }

  setAccess(address: number, length: number, access: Access, view = 0): void {
    this.#checkThere(address, length)
    const rights = bitsOf(access)
    this.#change(view, framesOf(address, length), (page) => {
      page.rights = rights
    })
  }

  getAccess(address: number, view = 0): Access {
    this.#checkThere(address, 1)
    return accessOf(this.rights(view, Math.floor(address / PAGE_SIZE)))
  }

  /** What the app has left the guest. */
  rights(view: number, frame: number): number {
    return this.#views.get(view)?.get(frame)?.rights ?? ALL_RIGHTS
  }

  /** Lets accesses to a range raise events, for an intercept of this number: in one view, or in all. */
  guard(number: number, address: number, length: number, accesses: number, view: number | undefined): void {
    this.#checkThere(address, length)
    const frames = framesOf(address, length)
    try {
      for (const one of view === undefined ? [0, ...this.#others] : [view]) {
        this.#change(one, frames, (page) => page.guards.set(number, accesses))
      }
    } catch (error) {
      if (!isGone(error)) this.unguard(number)
      throw error
    }
    if (view === undefined) this.#everywhere.add(number)
  }

  unguard(number: number): void {
    this.#everywhere.delete(number)
    for (const [view, pages] of [...this.#views]) {
      const frames = [...pages].filter(([, { guards }]) => guards.has(number)).map(([frame]) => frame)
      if (frames.length > 0) this.#change(view, frames, (page) => page.guards.delete(number))
    }
  }

  /** Leaves everything to the guest on one page until `restore`: for an instruction that is stepped over. */
  relax(view: number, frame: number): void {
    this.#of.set(view, [frame], [ALL_RIGHTS])
  }

  restore(view: number, frame: number): void {
    const page = this.#views.get(view)?.get(frame)
    this.#of.set(view, [frame], [page ? effective(page) : ALL_RIGHTS])
  }

  /** A new view begins with the rights of the guest's own, and with what is guarded everywhere. */
  copyTo(view: number): void {
    this.#others.add(view)
    const own = this.#views.get(0) ?? new Map<number, Page>()
    this.#change(view, [...own.keys()], (page, frame) => {
      const { rights, guards } = own.get(frame) ?? FREE
      page.rights = rights
      for (const [number, accesses] of guards) if (this.#everywhere.has(number)) page.guards.set(number, accesses)
    })
  }

  /** A view was destroyed. */
  forget(view: number): void {
    this.#others.delete(view)
    this.#views.delete(view)
  }

  /** As the guest was before. */
  release(): void {
    for (const [view, pages] of this.#views) {
      const frames = [...pages.keys()]
      this.#views.delete(view)
      this.#of.set(
        view,
        frames,
        frames.map(() => ALL_RIGHTS),
      )
    }
  }

  #change(view: number, frames: readonly number[], change: (page: Page, frame: number) => void): void {
    const pages = this.#views.get(view) ?? new Map<number, Page>()
    const changed: number[] = []
    const before = new Map<number, Page | undefined>()
    for (const frame of frames) {
      const page = pages.get(frame)
      const next: Page = { rights: page?.rights ?? ALL_RIGHTS, guards: new Map(page?.guards) }
      change(next, frame)
      before.set(frame, page)
      if (effective(next) !== (page ? effective(page) : ALL_RIGHTS)) changed.push(frame)
      if (next.rights === ALL_RIGHTS && next.guards.size === 0) pages.delete(frame)
      else pages.set(frame, next)
    }
    if (pages.size > 0) this.#views.set(view, pages)
    else this.#views.delete(view)
    const rightsNow = () => changed.map((frame) => effective(pages.get(frame) ?? FREE))
    if (changed.length === 0) return
    try {
      this.#of.set(view, changed, rightsNow())
    } catch (error) {
      for (const [frame, page] of before) {
        if (page) pages.set(frame, page)
        else pages.delete(frame)
      }
      if (pages.size > 0) this.#views.set(view, pages)
      else this.#views.delete(view)
      // Some may have been given their rights before one could not.
      if (!isGone(error)) this.#putBack(error, view, changed, rightsNow())
      throw error
    }
  }

  #putBack(error: unknown, view: number, frames: readonly number[], rights: readonly number[]): void {
    try {
      this.#of.set(view, frames, rights)
    } catch (second) {
      const message = `${messageOf(error)}; and the rights could not be put back as they were: ${messageOf(second)}`
      throw new MicrovmiError('HYPERVISOR', message, { cause: error })
    }
  }

  #checkThere(address: number, length: number): void {
    const missing = this.#of.firstMissing(address, length)
    if (missing !== undefined) throw badAddress(missing)
  }
}

const FREE: Page = { rights: ALL_RIGHTS, guards: new Map() }

/** Reading cannot be taken away from a page that may be written: EPT has no such entry (Intel SDM 3C, 28.3.3.1). */
function effective({ rights, guards }: Page): number {
  let left = rights
  for (const accesses of guards.values()) left &= ~accesses
  if (guards.size > 0 && (left & RIGHT.r) === 0) left &= ~RIGHT.w
  return left & ALL_RIGHTS
}

function isGone(error: unknown): boolean {
  return error instanceof MicrovmiError && error.code === 'VM_GONE'
}

function framesOf(address: number, length: number): number[] {
  const first = Math.floor(address / PAGE_SIZE)
  const last = Math.floor((address + Math.max(length, 1) - 1) / PAGE_SIZE)
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
