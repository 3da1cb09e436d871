import type { PagingMode } from './mode.ts'

/** One level of paging structures, the first one first. */
interface Level {
  /** The lowest bit of the virtual address that selects an entry. */
  readonly shift: number
  /** How many bits select it. */
  readonly bits: number
  /** Whether an entry with PS set maps a page instead of pointing at a table. */
  readonly mayMap: boolean
  /** Whether entries have access rights: those of PAE's first table have none. */
  readonly hasRights: boolean
}

/** What a mode's tables look like (Intel SDM volume 3A, sections 4.3 to 4.5). */
export interface Geometry {
  readonly levels: readonly Level[]
  readonly entryBytes: 4 | 8
  /** Virtual addresses have this many bits; with 48 and 57 the others repeat the topmost. */
  readonly virtualBits: 32 | 48 | 57
}

function level(shift: number, bits: number, mayMap = false, hasRights = true): Level {
  return { shift, bits, mayMap, hasRights }
}

const page = level(12, 9)
const directory = level(21, 9, true)
const pointers = level(30, 9, true)
const fourth = level(39, 9)
const fifth = level(48, 9)

/** Per mode; without paging there are no tables. */
export const GEOMETRY: { readonly [Mode in Exclude<PagingMode, 'none'>]: Geometry } = {
  '32-bit': { levels: [level(22, 10, true), level(12, 10)], entryBytes: 4, virtualBits: 32 },
  pae: { levels: [level(30, 2, false, false), directory, page], entryBytes: 8, virtualBits: 32 },
  '4-level': { levels: [fourth, pointers, directory, page], entryBytes: 8, virtualBits: 48 },
  '5-level': { levels: [fifth, fourth, pointers, directory, page], entryBytes: 8, virtualBits: 57 },
}

// Bits of an entry (Intel SDM volume 3A, tables 4-4 to 4-20).
export const PRESENT = 1
export const WRITABLE = 2
export const USER = 4
export const PAGE_SIZE_BIT = 0x80

/** A paging-structure entry in two halves: a number holds each exactly, and faster than a bigint holds both. */
export interface Entry {
  low: number
  high: number
}

/** The physical address of the table, or of the page of `2 ** shift` bytes, that an entry points at. */
export function addressIn(entry: Entry, entryBytes: 4 | 8, shift: number): number {
  // A 4 MiB page of 32-bit paging has address bits 32 to 39 in bits 13 to 20 (PSE-36, table 4-4).
  if (entryBytes === 4 && shift === 22) {
    return ((entry.low >>> 13) & 0xff) * 2 ** 32 + ((entry.low & 0xffc0_0000) >>> 0)
  }
  const low = (entry.low & 0xffff_f000) >>> 0
  const address = (entry.high & 0x000f_ffff) * 2 ** 32 + low
  return shift > 12 ? address - (address % 2 ** shift) : address
}
