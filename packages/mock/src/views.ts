import { type Access, badAddress, badArgument, MicrovmiError } from '@microvmi/core/driver'
import type { PhysicalMemory } from './physical-memory.ts'

/** Kinds of access, as bits. */
export const READ = 1
export const WRITE = 2
export const EXECUTE = 4
const ALL = READ | WRITE | EXECUTE

const PAGE = 4096
/** As many as Xen's altp2m has (MAX_ALTP2M, xen/arch/x86/include/asm/domain.h). */
const MOST_VIEWS = 10

interface View {
  /** Which page a frame shows, where not its own. */
  readonly shown: Map<number, number>
  /** What the guest may do to a frame, where not everything. */
  readonly rights: Map<number, number>
}

/** The guest-physical mappings that a vCPU may run in. View 0 is the guest's own. */
export class Views {
  readonly #memory: PhysicalMemory
  readonly #changed: () => void
  readonly #views = new Map<number, View>([[0, emptyView()]])

  /** @param changed called when what a vCPU has cached may be wrong. */
  constructor(memory: PhysicalMemory, changed: () => void) {
    this.#memory = memory
    this.#changed = changed
  }

  create(): number {
    let number = 1
    while (this.#views.has(number)) number += 1
    if (number >= MOST_VIEWS) throw new MicrovmiError('BUSY', `there are ${MOST_VIEWS} views already: destroy one`)
    const own = this.#of(0)
    this.#views.set(number, { shown: new Map(own.shown), rights: new Map(own.rights) })
    return number
  }

  destroy(view: number): void {
    this.#of(view)
    if (view === 0) throw badArgument("view 0 is the guest's own: it cannot be destroyed")
    this.#views.delete(view)
    this.#changed()
  }

  /** Throws `BAD_ARGUMENT` for a view that is not there. */
  check(view: number): void {
    this.#of(view)
  }

  has(view: number): boolean {
    return this.#views.has(view)
  }

  remap(view: number, frame: number, to: number | undefined): void {
    const { shown } = this.#of(view)
    if (view === 0) throw badArgument("view 0 is the guest's own: remap a frame in a view from create()")
    for (const one of to === undefined ? [frame] : [frame, to]) {
      if (!Number.isSafeInteger(one) || one < 0) throw badArgument(`a frame number is a whole number, not ${one}`)
      if (!this.#memory.page(one)) throw badAddress(one * PAGE)
    }
    if (to === undefined) shown.delete(frame)
    else shown.set(frame, to)
    this.#changed()
  }

  setAccess(address: number, length: number, access: Access, view = 0): void {
    const { rights } = this.#of(view)
    const last = Math.ceil((address + length) / PAGE) - 1
    for (let frame = Math.floor(address / PAGE); frame <= last; frame++) {
      if (!this.#memory.page(frame)) throw badAddress(Math.max(address, frame * PAGE))
    }
    const bits = bitsOf(access)
    for (let frame = Math.floor(address / PAGE); frame <= last; frame++) {
      if (bits === ALL) rights.delete(frame)
      else rights.set(frame, bits)
    }
    this.#changed()
  }

  getAccess(address: number, view = 0): Access {
    const frame = Math.floor(address / PAGE)
    if (!this.#memory.page(frame)) throw badAddress(address)
    return accessOf(this.#of(view).rights.get(frame) ?? ALL)
  }

  /** The frame whose page `frame` shows in a view. */
  shown(frame: number, view: number): number {
    return this.#views.get(view)?.shown.get(frame) ?? frame
  }

  /** Whether the guest may make this kind of access to a frame. */
  allows(frame: number, access: number, view: number): boolean {
    const rights = this.#views.get(view)?.rights.get(frame)
    return rights === undefined || (rights & access) !== 0
  }

  /** As it was before any introspection. */
  reset(): void {
    this.#views.clear()
    this.#views.set(0, emptyView())
    this.#changed()
  }

  /** Forgets a page that is taken away. */
  forget(frame: number): void {
    for (const { shown, rights } of this.#views.values()) {
      rights.delete(frame)
      shown.delete(frame)
      for (const [from, to] of shown) if (to === frame) shown.delete(from)
    }
    this.#changed()
  }

  #of(view: number): View {
    const found = this.#views.get(view)
    if (!found) {
      throw badArgument(`view ${String(view)} is not there; there are ${[...this.#views.keys()].join(', ')}`)
    }
    return found
  }
}

function emptyView(): View {
  return { shown: new Map(), rights: new Map() }
}

/** An access as bits. */
export function bitsOf(access: Access): number {
  if (access === 'none') return 0
  return (access.includes('r') ? READ : 0) | (access.includes('w') ? WRITE : 0) | (access.includes('x') ? EXECUTE : 0)
}

const NAMES: readonly Access[] = ['none', 'r', 'w', 'rw', 'x', 'rx', 'wx', 'rwx']

function accessOf(bits: number): Access {
  return NAMES[bits] ?? 'none'
}
