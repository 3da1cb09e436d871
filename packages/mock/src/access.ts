import {
  FAULT_FETCH,
  FAULT_PRESENT,
  FAULT_USER,
  FAULT_WRITE,
  Fault,
  GENERAL_PROTECTION,
  PAGE_FAULT,
} from './exceptions.ts'
import { canonical, emptyTranslation, markDirty, walk } from './page-tables.ts'
import type { Page } from './physical-memory.ts'
import type { Platform } from './platform.ts'
import type { Vcpu } from './vcpu.ts'
import { bitsOf, EXECUTE, READ, WRITE } from './views.ts'

const PAGE = 4096

/** CR0.WP: the kernel, too, does not write read-only pages (Intel SDM volume 3A, section 2.5). */
const WRITE_PROTECT = 0x1_0000n

/** Reads as the bus of a PC does where nothing answers: all ones. */
const nothing = new DataView(new Uint8Array(PAGE).fill(0xff).buffer)

/** What an access has found: its page, and whether the next one there need not ask again. */
export interface Access {
  page: Page
  cacheable: boolean
}

/**
 * Checks each access of a vCPU that its cache of translations does not know: page tables, rights, views, guards,
 * watchpoints. Throws a Fault, or what `hold` throws.
 */
export class AccessCheck {
  readonly #vcpu: Vcpu
  readonly #platform: Platform
  readonly #translation = emptyTranslation()
  readonly #found: Access = { page: { frame: 0, view: nothing, writable: false }, cacheable: false }

  constructor(vcpu: Vcpu, platform: Platform) {
    this.#vcpu = vcpu
    this.#platform = platform
  }

  /**
   * @param access one of READ, WRITE, EXECUTE
   * @param length bytes, within one page
   * @param user made with a process's rights
   */
  check(virtual: number, access: number, length: number, user: boolean): Access {
    const vcpu = this.#vcpu
    const { memory, views } = this.#platform
    const physical = this.#translate(virtual, access, user)
    const frame = Math.floor(physical / PAGE)
    const found = this.#found
    found.cacheable = this.#passesGuards(virtual, physical, access)
    if (access === EXECUTE) {
      found.cacheable = this.#passesBreakpoints(virtual, physical) && found.cacheable
    } else if (this.#platform.breakpoints.watchedIn(virtual - (virtual % PAGE))) {
      found.cacheable = false
      this.#touch(virtual, length, access === WRITE ? 'w' : 'r')
    }
    const shown = views.shown(frame, vcpu.view)
    const page = memory.page(shown)
    if (!page) found.page = { frame: shown, view: access === WRITE ? scratch() : nothing, writable: false }
    else if (access === WRITE && !page.writable) found.page = { frame: shown, view: scratch(), writable: false }
    else found.page = page
    if (access === READ && vcpu.pass?.data) {
      found.page = withData(found.page, virtual % PAGE, vcpu.pass.data)
      found.cacheable = false
    }
    return found
  }

  #translate(virtual: number, access: number, user: boolean): number {
    const { memory } = this.#platform
    if (virtual < 0 || virtual >= 2 ** 48) throw new Fault(GENERAL_PROTECTION, 0)
    const kind = (access === WRITE ? FAULT_WRITE : access === EXECUTE ? FAULT_FETCH : 0) | (user ? FAULT_USER : 0)
    const found = this.#translation
    if (!walk(memory, this.#vcpu.root, virtual, found, true)) throw new Fault(PAGE_FAULT, kind, virtual)
    const allowed =
      (!user || found.user) &&
      (access !== WRITE || found.writable || (!user && (this.#vcpu.cr0 & WRITE_PROTECT) === 0n)) &&
      (access !== EXECUTE || found.executable)
    if (!allowed) throw new Fault(PAGE_FAULT, kind | FAULT_PRESENT, virtual)
    if (access === WRITE) markDirty(found)
    return found.physical
  }

  /** Stops at a guarded page, unless this access was let through. True where nothing is guarded. */
  #passesGuards(virtual: number, physical: number, access: number): boolean {
    const vcpu = this.#vcpu
    const { views, watches } = this.#platform
    const frame = Math.floor(physical / PAGE)
    const forbidden = !views.allows(frame, access, vcpu.view)
    const watching = watches.of('memory')
    if (!watching) return !forbidden
    const armed: number[] = []
    for (const { number, request } of watching) {
      const last = Math.floor((request.address + Math.max(request.length, 1) - 1) / PAGE)
      const covers = frame >= Math.floor(request.address / PAGE) && frame <= last
      const inView = request.view === undefined || request.view === vcpu.view
      if (covers && inView && (forbidden || (bitsOf(request.access) & access) !== 0)) armed.push(number)
    }
    if (armed.length === 0) return !forbidden
    if (vcpu.pass?.grants.some((grant) => grant.frame === frame && grant.access === access)) return false
    return this.#platform.hold(
      vcpu,
      {
        kind: 'memory',
        fields: {
          address: physical,
          virtualAddress: canonical(virtual),
          access: access === READ ? 'r' : access === WRITE ? 'w' : 'x',
          view: vcpu.view,
        },
      },
      armed,
      'repeat',
      () => vcpu.passing().grants.push({ frame, access }),
    )
  }

  /** Stops at a breakpoint in a debug register. True where the page has none. */
  #passesBreakpoints(virtual: number, physical: number): boolean {
    const vcpu = this.#vcpu
    const { breakpoints } = this.#platform
    if (!breakpoints.hardwareIn(virtual - (virtual % PAGE))) return true
    if (vcpu.pastBreakpoints || virtual !== vcpu.rip) return false
    const armed = breakpoints.at(virtual, physical, vcpu.root)
    if (armed.length === 0) return false
    return this.#platform.hold(
      vcpu,
      { kind: 'breakpoint', fields: { address: canonical(virtual) } },
      armed,
      'repeat',
      () => {
        vcpu.passing().breakpoint = true
      },
    )
  }

  #touch(virtual: number, length: number, access: 'r' | 'w'): void {
    const vcpu = this.#vcpu
    for (const armed of this.#platform.breakpoints.watching(virtual, length, access, vcpu.root)) {
      vcpu.hits.push({ armed, address: virtual, access })
      vcpu.attention = true
    }
  }
}

/** Where writes go that go nowhere. */
function scratch(): DataView {
  return new DataView(new ArrayBuffer(PAGE))
}

/** A copy of a page with other bytes at an offset. */
function withData(page: Page, offset: number, data: Uint8Array): Page {
  const bytes = new Uint8Array(PAGE)
  bytes.set(new Uint8Array(page.view.buffer, page.view.byteOffset, PAGE))
  bytes.set(data.subarray(0, PAGE - offset), offset)
  return { frame: page.frame, view: new DataView(bytes.buffer), writable: false }
}
