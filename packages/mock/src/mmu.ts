import { AccessCheck } from './access.ts'
import type { Page } from './physical-memory.ts'
import type { Platform } from './platform.ts'
import type { Vcpu } from './vcpu.ts'
import { EXECUTE, READ, WRITE } from './views.ts'

const PAGE = 4096
const SLOTS = 64

/** Translations for one kind of access, kept by page. */
class Cache {
  readonly #tags = new Float64Array(SLOTS).fill(-1)
  readonly #pages: (Page | undefined)[] = Array.from({ length: SLOTS }, () => undefined)

  get(start: number): Page | undefined {
    const slot = (start >>> 12) % SLOTS
    return this.#tags[slot] === start ? this.#pages[slot] : undefined
  }

  put(start: number, page: Page): void {
    const slot = (start >>> 12) % SLOTS
    this.#tags[slot] = start
    this.#pages[slot] = page
  }

  clear(): void {
    this.#tags.fill(-1)
  }
}

interface Caches {
  readonly read: Cache
  readonly write: Cache
  readonly execute: Cache
}

function emptyCaches(): Caches {
  return { read: new Cache(), write: new Cache(), execute: new Cache() }
}

/**
 * A vCPU's way to memory by virtual addresses. As on a real one, translations are kept until CR3 is written, an
 * address invalidated, or the privilege changes to one with others.
 *
 * Every member may throw a Fault, or what `hold` throws; then nothing was changed.
 */
export class Mmu {
  /** The upper half of what `load64` has read. */
  upper = 0
  readonly #vcpu: Vcpu
  readonly #check: AccessCheck
  readonly #kernel = emptyCaches()
  readonly #user = emptyCaches()
  #caches = this.#kernel
  #isUser = false
  readonly #word = new DataView(new ArrayBuffer(8))

  constructor(vcpu: Vcpu, platform: Platform) {
    this.#vcpu = vcpu
    this.#check = new AccessCheck(vcpu, platform)
  }

  /** With whose rights memory is accessed from now on. */
  setUser(user: boolean): void {
    this.#isUser = user
    this.#caches = user ? this.#user : this.#kernel
  }

  get isUser(): boolean {
    return this.#isUser
  }

  /** Forgets all translations. */
  flush(): void {
    for (const { read, write, execute } of [this.#kernel, this.#user]) {
      read.clear()
      write.clear()
      execute.clear()
    }
  }

  load8(virtual: number): number {
    return this.#page(virtual, READ, 1).view.getUint8(virtual & 0xfff)
  }

  load16(virtual: number): number {
    if ((virtual & 0xfff) > PAGE - 2) return this.#across(virtual, 2).getUint16(0, true)
    return this.#page(virtual, READ, 2).view.getUint16(virtual & 0xfff, true)
  }

  load32(virtual: number): number {
    if ((virtual & 0xfff) > PAGE - 4) return this.#across(virtual, 4).getUint32(0, true)
    return this.#page(virtual, READ, 4).view.getUint32(virtual & 0xfff, true)
  }

  /** Returns the lower half; the upper is in `upper`. */
  load64(virtual: number): number {
    if ((virtual & 0xfff) > PAGE - 8) {
      const word = this.#across(virtual, 8)
      this.upper = word.getUint32(4, true)
      return word.getUint32(0, true)
    }
    const offset = virtual & 0xfff
    const { view } = this.#page(virtual, READ, 8)
    this.upper = view.getUint32(offset + 4, true)
    return view.getUint32(offset, true)
  }

  store8(virtual: number, value: number): void {
    this.#page(virtual, WRITE, 1).view.setUint8(virtual & 0xfff, value)
  }

  store16(virtual: number, value: number): void {
    if ((virtual & 0xfff) > PAGE - 2) {
      this.#storeAcross(virtual, 2, value, 0)
      return
    }
    this.#page(virtual, WRITE, 2).view.setUint16(virtual & 0xfff, value, true)
  }

  store32(virtual: number, value: number): void {
    if ((virtual & 0xfff) > PAGE - 4) {
      this.#storeAcross(virtual, 4, value, 0)
      return
    }
    this.#page(virtual, WRITE, 4).view.setUint32(virtual & 0xfff, value, true)
  }

  store64(virtual: number, low: number, high: number): void {
    if ((virtual & 0xfff) > PAGE - 8) {
      this.#storeAcross(virtual, 8, low, high)
      return
    }
    const offset = virtual & 0xfff
    const { view } = this.#page(virtual, WRITE, 8)
    view.setUint32(offset, low, true)
    view.setUint32(offset + 4, high, true)
  }

  /** The page that an instruction is fetched from. */
  code(virtual: number): Page {
    return this.#page(virtual, EXECUTE, 1)
  }

  #page(virtual: number, access: number, length: number): Page {
    const caches = this.#caches
    const cache = access === READ ? caches.read : access === WRITE ? caches.write : caches.execute
    const start = virtual - (virtual & 0xfff)
    const cached = cache.get(start)
    if (cached && !this.#vcpu.pass?.data) return cached
    const { page, cacheable } = this.#check.check(virtual, access, length, this.#isUser)
    if (cacheable) cache.put(start, page)
    return page
  }

  /** Bytes from two pages. */
  #across(virtual: number, length: number): DataView {
    for (let index = 0; index < length; index++) this.#word.setUint8(index, this.load8(virtual + index))
    return this.#word
  }

  #storeAcross(virtual: number, length: number, low: number, high: number): void {
    // Both pages first: nothing is written unless all can be.
    const inFirst = PAGE - (virtual & 0xfff)
    const first = this.#page(virtual, WRITE, inFirst)
    const second = this.#page(virtual + inFirst, WRITE, length - inFirst)
    this.#word.setUint32(0, low, true)
    this.#word.setUint32(4, high, true)
    for (let index = 0; index < length; index++) {
      const view = index < inFirst ? first.view : second.view
      view.setUint8((virtual + index) & 0xfff, this.#word.getUint8(index))
    }
  }
}
