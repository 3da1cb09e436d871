import { PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, hex } from '../expect.ts'

/** So many ranges' edges are tried. */
const EDGES = 8

/** `regions`. */
export const regions = behaviours('memory: regions', (define) => {
  define('ascending, disjoint, not empty', ['memory.regions'], ({ vm }) => {
    const { ranges } = vm.memory.regions()
    expect(ranges.length > 0, 'regions() has no range at all')
    let end = 0
    for (const { start, length, kind } of ranges) {
      const range = `the range of ${length} bytes from ${hex(start)}`
      expect(Number.isSafeInteger(start) && Number.isSafeInteger(length) && length > 0, `${range} is malformed`)
      expect(start % PAGE_SIZE === 0 && length % PAGE_SIZE === 0, `${range} is not made of whole pages`)
      expect(start >= end, `${range} begins before the end of the one before it, ${hex(end)}`)
      expect(kind === 'ram' || kind === 'rom', `${range} is of kind ${kind}`)
      end = start + length
    }
  })

  define('the same while nothing changes', ['memory.regions'], ({ vm }) => {
    const first = vm.memory.regions()
    const second = vm.memory.regions()
    expectEqual(second.generation, first.generation, 'the generation of the second regions()')
    const text = (layout: typeof first) => layout.ranges.map(({ start, length }) => `${hex(start)}+${length}`).join(' ')
    expectEqual(text(second), text(first), 'the second regions()')
  })

  define('what is known to be memory is in them, what is known not to be is not', ['memory.regions'], (trial) => {
    const { ranges } = trial.vm.memory.regions()
    const holding = (address: number) =>
      ranges.find(({ start, length }) => address >= start && address < start + length)
    for (const { address, bytes } of trial.memory('known')) {
      expect(holding(address)?.kind === 'ram', `known memory at ${hex(address)} is in no range of RAM`)
      expect(!!holding(address + bytes.length - 1), `the end of known memory at ${hex(address)} is in no range`)
    }
    const { end, hole } = trial.guest.memory ?? {}
    if (end !== undefined) {
      expect(!!holding(end - 1), `the last byte of RAM, ${hex(end - 1)}, is in no range`)
      expect(!holding(end), `${hex(end)}, behind the end of RAM, is in a range`)
    }
    if (hole) {
      const { start, length } = hole
      const touching = ranges.find((range) => range.start < start + length && range.start + range.length > start)
      expect(!touching, `the range from ${hex(touching?.start ?? 0)} goes into the hole at ${hex(start)}`)
    }
  })

  define('their edges are those of what can be read', ['memory.regions', 'memory.read'], ({ vm }) => {
    const { ranges } = vm.memory.regions()
    const isMemory = (address: number) => vm.memory.tryRead(address, new Uint8Array(1))
    const starts = new Set(ranges.map(({ start }) => start))
    const ends = new Set(ranges.map(({ start, length }) => start + length))
    for (const { start, length } of ranges.slice(0, EDGES)) {
      expect(isMemory(start), `the first byte of the range from ${hex(start)} cannot be read`)
      expect(isMemory(start + length - 1), `the last byte of the range from ${hex(start)} cannot be read`)
      if (start > 0 && !ends.has(start)) expect(!isMemory(start - 1), `the byte before ${hex(start)} can be read`)
      const end = start + length
      if (!starts.has(end)) expect(!isMemory(end), `the byte behind the range, at ${hex(end)}, can be read`)
    }
  })
})
