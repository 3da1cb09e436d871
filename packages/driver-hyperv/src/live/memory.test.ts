import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LiveMemory } from './memory.ts'
import { FakePartition } from './partition.testing.ts'

const PAGE = 4096
const PAGES = 200

test('any range reads as the bytes that are there, or tells the first page that is not', () => {
  const range = fc.record({
    start: fc.nat(PAGES * PAGE),
    length: fc.integer({ min: 1, max: 150 * PAGE }),
    holes: fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 3 }),
  })
  fc.assert(
    fc.property(range, ({ start, length, holes }) => {
      const memory = new LiveMemory(new FakePartition(PAGES, holes))
      const bad = [...holes, PAGES].filter((page) => (page + 1) * PAGE > start).sort((a, b) => a - b)[0] ?? PAGES
      const expected = Math.min(length, Math.max(0, bad * PAGE - start))
      const into = new Uint8Array(length)
      expect(memory.read(start, into)).toBe(expected)
      if (expected < length) return
      for (const at of [0, Math.floor(length / 2), length - 1]) {
        expect(into[at]).toBe(Math.floor((start + at) / PAGE) & 0xff)
      }
    }),
    { numRuns: 300 },
  )
})

test('a range that the library refuses as a whole, though each page is there, is read page by page', () => {
  const partition = new FakePartition(8)
  const whole = partition.readPages.bind(partition)
  partition.readPages = (page, into) => into.length === PAGE && whole(page, into)
  const into = new Uint8Array(3 * PAGE)
  expect(new LiveMemory(partition).read(PAGE, into)).toBe(into.length)
  expect([into[0], into[PAGE], into[2 * PAGE]]).toEqual([1, 2, 3])
})

test('a write writes all of it, or nothing when a byte is not memory', () => {
  const partition = new FakePartition(8, [5])
  const memory = new LiveMemory(partition)
  expect(memory.write(3 * PAGE - 2, Uint8Array.of(9, 8, 7))).toBe(3)
  expect(memory.write(4 * PAGE + 96, new Uint8Array(PAGE))).toBe(PAGE - 96)
  expect(memory.write(8 * PAGE, new Uint8Array(1))).toBe(0)
  expect(partition.calls).toEqual([`write ${3 * PAGE - 2} 3`])
  const into = new Uint8Array(5)
  memory.read(3 * PAGE - 3, into)
  expect([...into]).toEqual([2, 9, 8, 7, 3])
})
