import type { Segment } from '@microvmi/core/driver'

/**
 * QEMU keeps the second word of a segment's descriptor as its flags (target/i386/cpu.h, DESC_TYPE_SHIFT and following):
 * the attributes begin at bit 8, limit bits 16 to 19 lie between.
 */
export function segment(selector: number, base: bigint, limit: number, flags: number): Segment {
  return { selector, base, limit, attributes: (flags >>> 8) & 0xf0ff }
}
