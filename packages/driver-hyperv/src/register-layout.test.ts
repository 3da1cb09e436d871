import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readSegment, readTable, VALUE_SIZE, writeSegment, writeTable } from './register-layout.ts'

const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const value = () => new DataView(new ArrayBuffer(VALUE_SIZE))

test('a segment reads back as written, without the reserved attribute bits', () => {
  const uint16 = fc.integer({ min: 0, max: 0xffff })
  fc.assert(
    fc.property(
      uint64,
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      uint16,
      uint16,
      (base, limit, selector, attributes) => {
        const bytes = value()
        writeSegment(bytes, { base, limit, selector, attributes })
        expect(readSegment(bytes)).toEqual({ base, limit, selector, attributes: attributes & 0xf0ff })
      },
    ),
  )
})

test('what a change leaves out stays', () => {
  const bytes = value()
  writeSegment(bytes, { base: 1n, limit: 2, selector: 3, attributes: 0xa09b })
  writeSegment(bytes, { base: undefined, limit: undefined, selector: 9, attributes: undefined })
  expect(readSegment(bytes)).toEqual({ base: 1n, limit: 2, selector: 9, attributes: 0xa09b })
})

test('the limit of a table lies at 6 for the hypervisor and at 0 in a saved state', () => {
  fc.assert(
    fc.property(uint64, fc.integer({ min: 1, max: 0xffff }), (base, limit) => {
      for (const [form, other] of [
        ['hypervisor', 'saved'],
        ['saved', 'hypervisor'],
      ] as const) {
        const bytes = value()
        writeTable(bytes, form, { base, limit })
        expect(readTable(bytes, form)).toEqual({ base, limit })
        expect(readTable(bytes, other).limit).toBe(0)
      }
    }),
  )
})
