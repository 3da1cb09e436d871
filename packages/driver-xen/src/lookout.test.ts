import { expect, test } from 'vitest'
import { Lookout } from './lookout.ts'

/** A ring that has a request after so many looks, counted from the last one on. */
function ringAfter(looks: number) {
  let [asked, left] = [0, looks]
  return {
    get hasRequest() {
      asked += 1
      left -= 1
      if (left >= 0) return false
      left = looks
      return true
    },
    get asked() {
      return asked
    },
  }
}

test('what comes while it looks is seen', () => {
  const lookout = new Lookout(1000)
  lookout.begin()
  for (let times = 0; times < 5; times++) expect(lookout.sees(ringAfter(3))).toBe(true)
})

test('without microseconds it does not look', () => {
  const lookout = new Lookout(0)
  const ring = ringAfter(0)
  lookout.begin()
  expect(lookout.sees(ring)).toBe(false)
  expect(ring.asked).toBe(0)
})

test('after looks in vain it rests, and tries again', () => {
  const lookout = new Lookout(10)
  const nothing = ringAfter(Number.POSITIVE_INFINITY)
  for (let times = 0; times < 8; times++) {
    lookout.begin()
    expect(lookout.sees(nothing)).toBe(false)
  }
  const { asked } = nothing
  const soon = ringAfter(0)
  let rested = 0
  for (lookout.begin(); !lookout.sees(soon); lookout.begin()) rested += 1
  expect(rested).toBe(63)
  expect(nothing.asked).toBe(asked)
})

test('one turn of the event loop is not kept for ever', () => {
  const lookout = new Lookout(1000)
  const busy = ringAfter(0)
  lookout.begin()
  const start = performance.now()
  while (lookout.sees(busy)) expect(performance.now() - start).toBeLessThan(500)
  expect(lookout.sees(busy)).toBe(false)
  lookout.begin()
  expect(lookout.sees(busy)).toBe(true)
})
