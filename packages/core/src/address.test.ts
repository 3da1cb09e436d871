import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ADDRESS_LIMIT, checkBuffer, checkRange, PAGE_SIZE, pageFrame, pageStart } from './address.ts'

const address = fc.integer({ min: 0, max: ADDRESS_LIMIT - 1 })

test('pageStart is the multiple of the page size at or below', () => {
  fc.assert(
    fc.property(address, (at) => {
      const start = pageStart(at)
      expect(start % PAGE_SIZE).toBe(0)
      expect(at - start).toBeGreaterThanOrEqual(0)
      expect(at - start).toBeLessThan(PAGE_SIZE)
    }),
  )
})

test('pageFrame drops the flags of an entry, low and high', () => {
  const flags = fc.bigInt({ min: 0n, max: 0xfffn })
  fc.assert(
    fc.property(address, flags, flags, (at, low, high) => {
      expect(pageFrame(BigInt(pageStart(at)) | low | (high << 52n))).toBe(pageStart(at))
    }),
  )
})

test('addresses from 2 GiB on, where 32-bit operators fail', () => {
  expect(pageStart(0x8000_0fff)).toBe(0x8000_0000)
  expect(pageStart(0x1_0000_0001)).toBe(0x1_0000_0000)
  expect(pageFrame(0x8000_0001_2345_6067n)).toBe(0x1_2345_6000)
})

test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, ADDRESS_LIMIT, 2 ** 60, '4096', 4096n, undefined])(
  'the address %s is refused',
  (bad) => {
    expect(() => checkRange(bad as number, 1)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  },
)

test('a range that ends at 2^52 is the last', () => {
  expect(() => checkRange(ADDRESS_LIMIT - 8, 8)).not.toThrow()
  expect(() => checkRange(ADDRESS_LIMIT - 8, 9)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
})

test('a detached buffer is refused, an empty one is not', () => {
  const detached = new Uint8Array(16)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  expect(() => checkBuffer(detached)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  expect(() => checkBuffer(new Uint8Array(0))).not.toThrow()
  expect(() => checkBuffer([] as unknown as Uint8Array)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
})
