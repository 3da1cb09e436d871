import { ADDRESS_LIMIT } from '@microvmi/core/driver'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { CHUNK_SIZE, coveredFrom, layoutOf } from './chunk-list.ts'

const PAGE = 4096n

function chunks(...list: readonly (readonly [bigint, bigint])[]): Uint8Array {
  const bytes = new Uint8Array(list.length * CHUNK_SIZE)
  const view = new DataView(bytes.buffer)
  list.forEach(([start, count], index) => {
    view.setBigUint64(index * CHUNK_SIZE, start, true)
    view.setBigUint64(index * CHUNK_SIZE + 8, count, true)
  })
  return bytes
}

test('neighbours are joined, holes stay, the order does not matter', () => {
  const { ranges } = layoutOf(chunks([0x100n, 2n], [0n, 1n], [1n, 1n], [7n, 0n]), PAGE)
  expect(ranges).toEqual([
    { start: 0, length: 8192, kind: 'ram' },
    { start: 0x100000, length: 8192, kind: 'ram' },
  ])
})

test('chunks that overlap, overflow or are cut are refused', () => {
  expect(() => layoutOf(chunks([0n, 2n], [1n, 1n]), PAGE)).toThrow(/overlap at 0x1000/)
  expect(() => layoutOf(chunks([2n ** 64n - 1n, 2n]), PAGE)).toThrow(/beyond 52 bits/)
  expect(() => layoutOf(chunks([BigInt(ADDRESS_LIMIT) / PAGE - 1n, 2n]), PAGE)).toThrow(/beyond 52 bits/)
  expect(() => layoutOf(new Uint8Array(17), PAGE)).toThrow(/17 bytes/)
  expect(() => layoutOf(chunks(), 0n)).toThrow(/page size of 0/)
})

test('any list gives ascending, disjoint ranges of all of its pages, or PROTOCOL', () => {
  const word = fc.oneof(fc.bigInt({ min: 0n, max: 64n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
  fc.assert(
    fc.property(fc.array(fc.tuple(word, word), { maxLength: 12 }), (list) => {
      try {
        const { ranges } = layoutOf(chunks(...list), PAGE)
        const total = ranges.reduce((sum, { length }) => sum + length, 0)
        expect(BigInt(total)).toBe(list.reduce((sum, [, count]) => sum + count, 0n) * PAGE)
        ranges.slice(1).forEach(({ start }, index) => {
          const before = ranges[index]
          expect(start).toBeGreaterThan((before?.start ?? 0) + (before?.length ?? 0))
        })
        for (const { start, length } of ranges) {
          expect(coveredFrom(ranges, start, length + 1)).toBe(length)
          expect(coveredFrom(ranges, start + length, 1)).toBe(0)
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
  )
})
