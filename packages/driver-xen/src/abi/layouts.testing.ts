import { readFileSync } from 'node:fs'

/** What layouts/layouts.c printed from the headers of a version: sizes, offsets and constants, by the headers' names. */
export interface Layout {
  readonly [struct: string]: { readonly [member: string]: number | undefined } | undefined
}

/** Each Xen 4.x whose headers were printed, with what they say. */
export const LAYOUTS: readonly (readonly [minor: number, layout: Layout])[] = Array.from(
  { length: 10 },
  (_, index) => 11 + index,
).map((minor) => {
  const file = new URL(`../../layouts/4.${minor}.json`, import.meta.url)
  return [minor, JSON.parse(readFileSync(file, 'utf8')) as Layout]
})

/** A member that the headers must have. */
export function at(layout: Layout, struct: string, member: string): number {
  const value = layout[struct]?.[member]
  if (value === undefined) throw new Error(`the headers have no ${struct}.${member}`)
  return value
}
