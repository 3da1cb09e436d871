import fc from 'fast-check'
import { expect, test } from 'vitest'
import { handlesOf } from './handle-table.ts'

/** A table as Windows lays it out. */
function table(entries: readonly { pid: number; handle: number }[], claimed = entries.length): Uint8Array {
  const bytes = new Uint8Array(16 + entries.length * 40)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, BigInt(claimed), true)
  entries.forEach(({ pid, handle }, index) => {
    const at = 16 + index * 40
    view.setBigUint64(at, 0xffff_8000_dead_0000n, true)
    view.setBigUint64(at + 8, BigInt(pid), true)
    view.setBigUint64(at + 16, BigInt(handle), true)
  })
  return bytes
}

test('the handles of the processes asked for, in order, none cut to 16 bits', () => {
  const entry = fc.record({ pid: fc.constantFrom(4, 1234, 70_000, 136_770), handle: fc.nat(2 ** 31 - 1) })
  fc.assert(
    fc.property(fc.array(entry), fc.nat(64), (entries, slack) => {
      const bytes = new Uint8Array([...table(entries), ...new Uint8Array(slack)])
      const wanted = entries.filter(({ pid }) => pid === 70_000)
      expect(handlesOf(bytes, new Set([70_000]))).toEqual(wanted)
    }),
  )
})

test('a count beyond the table, or a table too short for one, is PROTOCOL', () => {
  expect(() => handlesOf(table([{ pid: 1, handle: 4 }], 2), new Set([1]))).toThrow(
    /claims 2 entries and has room for 1/,
  )
  expect(() => handlesOf(new Uint8Array(15), new Set())).toThrow(/it has 15 bytes/)
})

test('any bytes give handles or PROTOCOL, no more of them than there is room for', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      try {
        expect(handlesOf(bytes, new Set([0, 1])).length).toBeLessThanOrEqual(10)
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
  )
})
