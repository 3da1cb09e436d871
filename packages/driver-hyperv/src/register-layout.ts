import type { DescriptorTable, Segment } from '@microvmi/core/driver'

/** Both register unions have 16 bytes (hvgdk.h, HV_REGISTER_VALUE; VmSavedStateDumpDefs.h, VIRTUAL_PROCESSOR_REGISTER). */
export const VALUE_SIZE = 16

/** Where the limit of a GDTR or IDTR lies: in HV_REGISTER_VALUE behind 6 bytes of padding, in a saved state's at 0. */
export type TableForm = 'hypervisor' | 'saved'

const LIMIT_AT: Readonly<Record<TableForm, number>> = { hypervisor: 6, saved: 0 }
const TABLE_BASE_AT = 8

/** The union's segment: base at 0, limit at 8, selector at 12, attributes at 14 (bits 8 to 11 are reserved). */
const SEGMENT = { base: 0, limit: 8, selector: 12, attributes: 14 } as const
const ATTRIBUTES = 0xf0ff

export function readSegment(value: DataView): Segment {
  return {
    base: value.getBigUint64(SEGMENT.base, true),
    limit: value.getUint32(SEGMENT.limit, true),
    selector: value.getUint16(SEGMENT.selector, true),
    attributes: value.getUint16(SEGMENT.attributes, true) & ATTRIBUTES,
  }
}

/** Parts that are `undefined` keep what the value holds. */
export function writeSegment(value: DataView, segment: Segment): void {
  if (segment.base !== undefined) value.setBigUint64(SEGMENT.base, segment.base, true)
  if (segment.limit !== undefined) value.setUint32(SEGMENT.limit, segment.limit, true)
  value.setUint16(SEGMENT.selector, segment.selector, true)
  if (segment.attributes !== undefined) {
    const reserved = value.getUint16(SEGMENT.attributes, true) & ~ATTRIBUTES
    value.setUint16(SEGMENT.attributes, reserved | (segment.attributes & ATTRIBUTES), true)
  }
}

export function readTable(value: DataView, form: TableForm): DescriptorTable {
  return { base: value.getBigUint64(TABLE_BASE_AT, true), limit: value.getUint16(LIMIT_AT[form], true) }
}

export function writeTable(value: DataView, form: TableForm, { base, limit }: DescriptorTable): void {
  value.setBigUint64(TABLE_BASE_AT, base, true)
  value.setUint16(LIMIT_AT[form], limit, true)
}
