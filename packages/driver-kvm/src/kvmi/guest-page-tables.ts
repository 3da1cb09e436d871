import { pageFrame } from '@microvmi/core/driver'

/** CR4.LA57: five levels (Intel SDM volume 3A, section 2.5). */
const LA57 = 1n << 12n
const PRESENT = 1n
/** PS: the entry maps a large page (Intel SDM volume 3A, table 4-16). */
const LARGE = 1n << 7n
/** Bits of a virtual address that each level indexes with, from the lowest. */
const LEVEL_BITS = 9n
const PAGE_BITS = 12n

/**
 * The guest-physical address of a virtual one in the address space of a CR3, in 64-bit mode. `undefined` where nothing
 * is mapped. `word` reads 8 bytes of physical memory, and gives `undefined` where there is none.
 */
export function walk(
  address: bigint,
  cr3: bigint,
  cr4: bigint,
  word: (physical: number) => bigint | undefined,
): number | undefined {
  let table = pageFrame(cr3)
  for (let level = (cr4 & LA57) !== 0n ? 4n : 3n; ; level--) {
    const shift = PAGE_BITS + LEVEL_BITS * level
    const entry = word(table + Number((address >> shift) & 0x1ffn) * 8)
    if (entry === undefined || (entry & PRESENT) === 0n) return undefined
    if (level === 0n || (level < 3n && (entry & LARGE) !== 0n)) {
      const offset = Number(BigInt.asUintN(Number(shift), address))
      const frame = pageFrame(entry)
      return frame - (frame % 2 ** Number(shift)) + offset
    }
    table = pageFrame(entry)
  }
}
