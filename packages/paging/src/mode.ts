import { pageFrame, type Registers } from '@microvmi/core'

/** How an x86 processor translates (Intel SDM volume 3A, section 4.1.1). */
export type PagingMode = 'none' | '32-bit' | 'pae' | '4-level' | '5-level'

/** Which registers decide over translation. */
export type PagingRegisters = Pick<Registers, 'cr0' | 'cr3' | 'cr4' | 'efer'>

/** Where a translation begins, and by which rules. */
export interface Paging {
  readonly mode: PagingMode
  /** Guest-physical address of the first table. */
  readonly root: number
  /** Whether bit 63 of an entry forbids execution (EFER.NXE); else it is no right. */
  readonly noExecute: boolean
  /** Whether entries of 32-bit paging may map 4 MiB (CR4.PSE). */
  readonly largePages: boolean
}

// Intel SDM volume 3A, section 2.5 (control registers) and table 2-1 (IA32_EFER).
const CR0_PG = 1n << 31n
const CR4_PSE = 1n << 4n
const CR4_PAE = 1n << 5n
const CR4_LA57 = 1n << 12n
const EFER_LMA = 1n << 10n
const EFER_NXE = 1n << 11n

/**
 * How a vCPU with these registers translates. Where the backend does not give EFER, long mode is assumed as soon as
 * PAE is on: systems that stay with PAE are rare, and those have 32-bit addresses only.
 */
export function pagingOf(registers: PagingRegisters): Paging {
  const { cr0, cr3, cr4, efer } = registers
  const mode = modeOf(cr0, cr4, efer)
  return {
    mode,
    root: rootOf(mode, cr3),
    noExecute: efer === undefined ? mode !== '32-bit' : (efer & EFER_NXE) !== 0n,
    largePages: mode !== '32-bit' || (cr4 & CR4_PSE) !== 0n,
  }
}

function modeOf(cr0: bigint, cr4: bigint, efer: bigint | undefined): PagingMode {
  if ((cr0 & CR0_PG) === 0n) return 'none'
  if ((cr4 & CR4_PAE) === 0n) return '32-bit'
  if (efer !== undefined && (efer & EFER_LMA) === 0n) return 'pae'
  return (cr4 & CR4_LA57) === 0n ? '4-level' : '5-level'
}

/** CR3's address bits: from bit 12 on; with PAE from bit 5 on, within 4 GiB (tables 4-3, 4-7 and 4-12). */
function rootOf(mode: PagingMode, cr3: bigint): number {
  if (mode === 'pae') return Number(cr3 & 0xffff_ffe0n)
  if (mode === '32-bit') return Number(cr3 & 0xffff_f000n)
  return pageFrame(cr3)
}
