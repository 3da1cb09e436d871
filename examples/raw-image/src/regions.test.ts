import { expect, test } from 'vitest'
import { extent, parseRegions } from './regions.ts'

test('reads start+length', () => {
  expect(parseRegions('0+0xA0,256+16', 4096)).toEqual([
    { start: 0, length: 0xa0, kind: 'ram' },
    { start: 256, length: 16, kind: 'ram' },
  ])
  expect(parseRegions(undefined, 0)).toEqual([])
})

test.each(['', '1', '1+', '-1+2', '1+0', '0+8,4+8', '8+8,0+4', '4090+7', '0+1e3', '0+1,', '0+99999999999999999999'])(
  'refuses %j',
  (text) => {
    expect(() => parseRegions(text, 4096)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  },
)

test('tells how far memory goes', () => {
  const ranges = parseRegions('16+16,32+16,64+8', 4096)
  expect(extent(ranges, 0, 4)).toBe(0)
  expect(extent(ranges, 16, 32)).toBe(32)
  expect(extent(ranges, 20, 40)).toBe(28)
  expect(extent(ranges, 50, 40)).toBe(0)
  expect(extent(ranges, 70, 4)).toBe(2)
  expect(extent([], 0, 1)).toBe(0)
})
