import fc from 'fast-check'
import { expect, test } from 'vitest'
import { framed, registerIn } from './gdb-client.ts'

test('a packet has the checksum of its bytes', () => {
  expect(framed('')).toBe('$#00')
  // The example of the manual's section on packet acknowledgment.
  expect(framed('qSupported')).toBe('$qSupported#37')
  expect(framed('g')).toBe('$g#67')
})

test('a register is little endian, at its byte', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(64), (value, at) => {
      const bytes = Buffer.alloc(at + 8)
      bytes.writeBigUInt64LE(value, at)
      expect(registerIn(bytes.toString('hex'), at)).toBe(value)
    }),
  )
})
