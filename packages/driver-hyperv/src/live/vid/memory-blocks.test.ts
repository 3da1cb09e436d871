import { expect, test } from 'vitest'
import { layoutOf, pageCount, ramBlock } from './memory-blocks.ts'

const MIB = 256

test('RAM is the one block that is large enough to be it', () => {
  const video = { handle: 1, pages: 8 * MIB, valid: 8 * MIB }
  const ram = { handle: 7, pages: 2048 * MIB, valid: 2048 * MIB }
  expect(ramBlock([video, ram])).toBe(ram)
  expect(() => ramBlock([video])).toThrow(/shows no RAM/)
})

test('RAM whose place is not known is refused', () => {
  const low = { handle: 1, pages: 0xf80 * MIB, valid: 0xf80 * MIB }
  expect(ramBlock([low])).toBe(low)
  expect(() => ramBlock([low, { ...low, handle: 2, pages: 128 * MIB }])).toThrow(/several blocks/)
  expect(() => ramBlock([{ ...low, pages: 0xf80 * MIB + 1 }])).toThrow(/beyond the gap/)
})

test('a page count beyond what a guest can address is PROTOCOL', () => {
  expect(pageCount(2n ** 40n - 1n)).toBe(2 ** 40 - 1)
  expect(() => pageCount(2n ** 40n)).toThrow(/claims to have/)
})

test('where the host has taken pages back, there is no layout, but the reason', () => {
  const whole = { handle: 1, pages: 8, valid: 8 }
  expect(layoutOf(whole)).toEqual({ generation: 0, ranges: [{ start: 0, length: 8 * 4096, kind: 'ram' }] })
  expect(layoutOf({ ...whole, valid: 7 })).toMatch(/dynamic memory/)
})
