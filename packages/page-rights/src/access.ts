import type { Access } from '@microvmi/core/driver'

/** Rights of a page, or accesses to one, as bits: what both Xen and KVMi use (memory.h, kvmi.rst). */
export const RIGHT = { r: 1, w: 2, x: 4 } as const
export const ALL_RIGHTS = 7

const NAMES: readonly Access[] = ['none', 'r', 'w', 'rw', 'x', 'rx', 'wx', 'rwx']

/** An access as bits. */
export function bitsOf(access: Access): number {
  return NAMES.indexOf(access)
}

/** Bits as an access; what is beyond the three of them is left out. */
export function accessOf(bits: number): Access {
  return NAMES[bits & ALL_RIGHTS] ?? 'none'
}
