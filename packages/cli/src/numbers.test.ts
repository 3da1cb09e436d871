import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseBytes, parseCount, parseNumber } from './numbers.ts'

test.each([
  ['0', 0],
  ['4096', 4096],
  ['0x1000', 4096],
  ['0XfF', 255],
  ['64k', 65_536],
  ['1KiB', 1024],
  ['2M', 2 ** 21],
  ['3GiB', 3 * 2 ** 30],
  ['1t', 2 ** 40],
])('%s is %i', (text, value) => {
  expect(parseNumber(text)).toBe(value)
})

test.each(['', '-1', '1.5', '0x', 'x10', '10 k', 'kB', '1e3', '0x10k', '99999999999999999999', '0xffffffffffffffff'])(
  '%j is no number',
  (text) => {
    expect(() => parseNumber(text)).toThrow()
  },
)

test('every safe integer, decimal and hexadecimal', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      expect(parseNumber(String(value))).toBe(value)
      expect(parseNumber(`0x${value.toString(16)}`)).toBe(value)
      expect(parseCount(String(value))).toBe(value)
    }),
  )
})

test('bytes in hexadecimal, with blanks or without', () => {
  expect([...parseBytes('de ad BEef')]).toEqual([0xde, 0xad, 0xbe, 0xef])
  for (const bad of ['', ' ', 'abc', 'zz', '0x00', 'abc d z']) expect(() => parseBytes(bad)).toThrow()
})
