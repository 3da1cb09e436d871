import fc from 'fast-check'
import { expect, test } from 'vitest'
import { rangesOf } from './pv-memory-map.ts'

const PAGE = 4096

test('ranges are ascending, apart from each other, and hold each frame and no other', () => {
  const sets = fc.uniqueArray(fc.oneof(fc.nat(40), fc.nat(2 ** 32)))
  fc.assert(
    fc.property(sets, (frames) => {
      const ranges = rangesOf([...frames].sort((a, b) => b - a))
      let end = -1
      const held: number[] = []
      for (const { start, length, kind } of ranges) {
        expect(kind).toBe('ram')
        expect(start).toBeGreaterThan(end)
        end = start + length
        for (let address = start; address < end; address += PAGE) held.push(address / PAGE)
      }
      expect(held).toEqual([...frames].sort((a, b) => a - b))
    }),
  )
})
