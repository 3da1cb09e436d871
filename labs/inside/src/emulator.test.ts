import fc from 'fast-check'
import { expect, test } from 'vitest'
import { interceptingInt3 } from './emulator.ts'

const check = Buffer.from('4c89c931d2be75000000e8', 'hex')
const changed = Buffer.from('4c89c931d2be43000000e8', 'hex')
/** Bytes among which the check does not begin. */
const filler = fc.uint8Array().map((bytes) =>
  Buffer.from(bytes)
    .fill(0x90, 0, 0)
    .map((byte) => (byte === 0x4c ? 0 : byte)),
)

test('one byte is changed, and it is that of the check', () => {
  fc.assert(
    fc.property(filler, filler, (before, after) => {
      const binary = Buffer.concat([before, check, after])
      const copy = Buffer.from(binary)
      expect(interceptingInt3(binary)).toEqual(Buffer.concat([before, changed, after]))
      expect(binary).toEqual(copy)
    }),
  )
})

test('an emulator where the check is not there, or twice, is refused', () => {
  expect(() => interceptingInt3(Buffer.alloc(100))).toThrow('does not know')
  expect(() => interceptingInt3(Buffer.concat([check, check]))).toThrow('does not know')
})
