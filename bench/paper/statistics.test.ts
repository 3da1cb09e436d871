import fc from 'fast-check'
import { expect, test } from 'vitest'
import { boxOf, summarize } from './statistics.ts'

test('a summary of known values', () => {
  expect(summarize([9, 2, 5, 4, 4, 4, 5, 7])).toEqual({
    count: 8,
    mean: 5,
    median: 4.5,
    minimum: 2,
    maximum: 9,
    deviation: Math.sqrt(32 / 7),
  })
})

test('of one value, and of none', () => {
  expect(summarize([3])).toEqual({ count: 1, mean: 3, median: 3, minimum: 3, maximum: 3, deviation: 0 })
  expect(() => summarize([])).toThrow(RangeError)
  expect(() => boxOf([])).toThrow(RangeError)
})

test('a box of known values: quartiles between two values, and what lies far off', () => {
  expect(boxOf([1, 2, 3, 4, 5, 6, 7, 100])).toEqual({
    median: 4.5,
    mean: 16,
    lower: 2.75,
    upper: 6.25,
    low: 1,
    high: 7,
    outliers: [100],
  })
})

test('whatever the values, a box is in order, and every value is within the whiskers or an outlier', () => {
  const value = fc.double({ min: 0, max: 1e12, noNaN: true })
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 200 }), (values) => {
      const { low, lower, median, upper, high, outliers } = boxOf(values)
      const inOrder = [low, lower, median, upper, high]
      expect(inOrder).toEqual([...inOrder].sort((a, b) => a - b))
      const beyond = values.filter((one) => one < low || one > high)
      expect(beyond.sort((a, b) => a - b)).toEqual(outliers)
      const { minimum, maximum } = summarize(values)
      expect([minimum, maximum]).toEqual([Math.min(...values), Math.max(...values)])
    }),
  )
})
