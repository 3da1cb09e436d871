import { PAGE_SIZE } from '@microvmi/core/driver'
import type { Mapping } from './foreign-memory.ts'

/** Up to this many bytes a loop is faster than making a view for a copy. */
const SMALL = 16

/** How many of `length` bytes from `offset` are there before the first page that is not. */
export function usableIn(mapping: Mapping, offset: number, length: number): number {
  const last = Math.floor((offset + length - 1) / PAGE_SIZE)
  for (let page = Math.floor(offset / PAGE_SIZE); page <= last; page++) {
    if (mapping.present[page] !== 1) return Math.max(0, page * PAGE_SIZE - offset)
  }
  return length
}

/** Fills `into` from one page, in which the range lies. */
export function copyOut(page: Uint8Array, offset: number, into: Uint8Array): void {
  const { length } = into
  if (length === PAGE_SIZE) into.set(page)
  else if (length > SMALL) into.set(page.subarray(offset, offset + length))
  else for (let index = 0; index < length; index++) into[index] = page[offset + index] ?? 0
}

/** Copies a range of a mapping, all of which is there, to `at` in `into`. */
export function copyPart(mapping: Mapping, offset: number, length: number, into: Uint8Array, at: number): void {
  const { bytes } = mapping
  if (length === PAGE_SIZE && offset % PAGE_SIZE === 0) into.set(viewOf(mapping, offset / PAGE_SIZE), at)
  else if (length > SMALL) into.set(bytes.subarray(offset, offset + length), at)
  else for (let index = 0; index < length; index++) into[at + index] = bytes[offset + index] ?? 0
}

/** One page of a mapping. */
export function viewOf({ bytes, views }: Mapping, page: number): Uint8Array {
  let view = views[page]
  if (!view) {
    view = bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    views[page] = view
  }
  return view
}
