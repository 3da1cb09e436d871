import type { Page, PhysicalMemory } from './physical-memory.ts'

/*
 * Four-level paging of x86-64 (Intel SDM volume 3A, section 4.5). Virtual addresses are the low 48 bits as a number
 * here, which is exact and cheap; the canonical 64-bit form is made where they leave this package.
 */

/** Entry bits (Intel SDM volume 3A, tables 4-15 to 4-20). */
const PRESENT = 1
const WRITABLE = 2
const USER = 4
const ACCESSED = 0x20
const DIRTY = 0x40
/** In an entry of level 2 or 3: it maps 2 MiB or 1 GiB itself. */
const LARGE = 0x80
/** Bit 63, as it stands in the upper half of an entry. */
const NO_EXECUTE_HIGH = 0x8000_0000

const PAGE = 4096
/** Bytes that one entry of the levels 1 to 4 spans. */
const SPAN = [0, PAGE, 2 ** 21, 2 ** 30, 2 ** 39] as const

/** What a walk found. One object is used again and again. */
export interface Translation {
  /** Guest-physical address, not of the page but of the byte. */
  physical: number
  /** Bytes that the last entry maps: 4 KiB, 2 MiB or 1 GiB. */
  span: number
  writable: boolean
  user: boolean
  executable: boolean
  /** Where the last entry is: its page, and its offset there. */
  table: Page | undefined
  offset: number
}

export function emptyTranslation(): Translation {
  return { physical: 0, span: 0, writable: false, user: false, executable: false, table: undefined, offset: 0 }
}

/**
 * Walks the tables from `root`, the guest-physical address of the top one. False where nothing is mapped.
 *
 * @param access the walk is a vCPU's: entries are marked as accessed
 */
export function walk(
  memory: PhysicalMemory,
  root: number,
  virtual: number,
  into: Translation,
  access = false,
): boolean {
  let table = root
  into.writable = true
  into.user = true
  into.executable = true
  for (let level = 4; level > 0; level--) {
    const page = memory.page(Math.floor(table / PAGE))
    if (!page) return false
    const offset = entryOffset(virtual, level)
    const low = page.view.getUint32(offset, true)
    const high = page.view.getUint32(offset + 4, true)
    if ((low & PRESENT) === 0) return false
    if ((low & WRITABLE) === 0) into.writable = false
    if ((low & USER) === 0) into.user = false
    if (high >= NO_EXECUTE_HIGH) into.executable = false
    if (access && (low & ACCESSED) === 0) page.view.setUint32(offset, low | ACCESSED, true)
    table = (high & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0)
    const large = (low & LARGE) !== 0 && (level === 2 || level === 3)
    if (level > 1 && !large) continue
    const span = SPAN[level] ?? PAGE
    into.span = span
    into.physical = table - (table % span) + (virtual % span)
    into.table = page
    into.offset = offset
    return true
  }
  return false
}

/** Notes in the entry of a translation that its page was written. */
export function markDirty({ table, offset }: Translation): void {
  if (!table) return
  const low = table.view.getUint32(offset, true)
  if ((low & DIRTY) === 0) table.view.setUint32(offset, low | DIRTY, true)
}

/** Where the entry for an address is in its table of a level (4 is the top). */
function entryOffset(virtual: number, level: number): number {
  return (Math.floor(virtual / (SPAN[level] ?? PAGE)) % 512) * 8
}

/** What a mapping allows. */
export interface Rights {
  readonly writable: boolean
  readonly user: boolean
  readonly executable: boolean
}

/** A mapping as it was made. */
export interface Mapping extends Rights {
  /** Canonical. */
  readonly virtual: bigint
  readonly physical: number
  /** Bytes: 4 KiB or 2 MiB. */
  readonly length: number
}

/** Builds page tables in guest memory, and remembers what it mapped. */
export class AddressSpace {
  /** Guest-physical address of the top table: CR3. */
  readonly root: number
  readonly mappings: Mapping[] = []
  readonly #memory: PhysicalMemory
  readonly #allocate: () => number

  /** @param allocate gives the guest-physical address of a free, zeroed page. */
  constructor(memory: PhysicalMemory, allocate: () => number) {
    this.#memory = memory
    this.#allocate = allocate
    this.root = allocate()
  }

  /** Maps one page of 4 KiB, or of 2 MiB. Both addresses are multiples of its length. */
  map(virtual: number, physical: number, rights: Rights, length: 4096 | 0x20_0000 = 4096): void {
    const last = length === PAGE ? 1 : 2
    let table = this.root
    for (let level = 4; level > last; level--) {
      const next = this.#read(table, entryOffset(virtual, level))
      if (next !== undefined) {
        table = next
        continue
      }
      const made = this.#allocate()
      this.#write(table, entryOffset(virtual, level), made, PRESENT | WRITABLE | (rights.user ? USER : 0), false)
      table = made
    }
    const flags = PRESENT | (rights.writable ? WRITABLE : 0) | (rights.user ? USER : 0) | (length === PAGE ? 0 : LARGE)
    this.#write(table, entryOffset(virtual, last), physical, flags, !rights.executable)
    this.mappings.push({ virtual: canonical(virtual), physical, length, ...rights })
  }

  /** Shares the upper half, the kernel's, of another space: its top entries are copied. */
  shareKernelOf(other: AddressSpace): void {
    const from = this.#page(other.root)
    const to = this.#page(this.root)
    for (let offset = PAGE / 2; offset < PAGE; offset += 8) {
      to.view.setBigUint64(offset, from.view.getBigUint64(offset, true), true)
    }
    this.mappings.push(...other.mappings)
  }

  #page(table: number): Page {
    const page = this.#memory.page(table / PAGE)
    if (!page) throw new RangeError(`no memory for a page table at 0x${table.toString(16)}`)
    return page
  }

  #read(table: number, offset: number): number | undefined {
    const { view } = this.#page(table)
    const low = view.getUint32(offset, true)
    if ((low & PRESENT) === 0) return undefined
    return (view.getUint32(offset + 4, true) & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0)
  }

  #write(table: number, offset: number, physical: number, flags: number, noExecute: boolean): void {
    const { view } = this.#page(table)
    view.setUint32(offset, (physical % 2 ** 32) + flags, true)
    view.setUint32(offset + 4, Math.floor(physical / 2 ** 32) + (noExecute ? NO_EXECUTE_HIGH : 0), true)
  }
}

/** The canonical 64-bit form of the low 48 bits of a virtual address. */
export function canonical(virtual: number): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(48, BigInt(virtual)))
}

/** The low 48 bits of a canonical virtual address; undefined for one that is not canonical. */
export function uncanonical(virtual: bigint): number | undefined {
  const low = Number(BigInt.asUintN(48, virtual))
  return canonical(low) === virtual ? low : undefined
}
