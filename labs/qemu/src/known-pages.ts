import type { Line } from './console-lines.ts'

/** What page `index` of the process `microvmi-known` holds (`fill` in guest/init.c). */
export function knownPage(index: number): Uint8Array {
  const page = new Uint8Array(4096)
  new TextEncoder().encodeInto('microvmi-known\r\n', page)
  new DataView(page.buffer).setBigUint64(16, BigInt(index), true)
  for (let at = 24; at < page.length; at++) page[at] = (index * 31 + at * 7) % 251
  return page
}

/** Where the known pages are in physical memory, by index. Throws where one is missing. */
export function pagesOf(known: Line, lines: readonly Line[]): number[] {
  const pages = new Map(lines.map((line) => [line.number('index'), line.number('physical')]))
  const count = known.number('pages')
  const indexes = [...pages.keys()].sort((a, b) => a - b)
  if (indexes.length !== count || indexes.some((index, place) => index !== place)) {
    throw new Error(`the guest has ${count} known pages, but told where these are: ${indexes.join(', ')}`)
  }
  return indexes.map((index) => pages.get(index) ?? 0)
}
