import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Hexdump } from './hexdump.ts'

function dump(bytes: Uint8Array, address = 0, split = bytes.length): string {
  const hexdump = new Hexdump(address)
  return hexdump.push(bytes.subarray(0, split)) + hexdump.push(bytes.subarray(split)) + hexdump.end()
}

test('looks like hexdump -C', () => {
  const bytes = Buffer.concat([
    Buffer.from('Hello, introspected world!\n\0\x7f\xff', 'latin1'),
    Buffer.alloc(66),
    Buffer.of(1),
  ])
  expect(dump(bytes, 0x1000)).toBe(
    [
      '00001000  48 65 6c 6c 6f 2c 20 69  6e 74 72 6f 73 70 65 63  |Hello, introspec|',
      '00001010  74 65 64 20 77 6f 72 6c  64 21 0a 00 7f ff 00 00  |ted world!......|',
      '00001020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|',
      '*',
      '00001060  01                                                |.|',
      '00001061',
      '',
    ].join('\n'),
  )
})

test('nothing is one offset', () => {
  expect(dump(new Uint8Array(0), 0x20)).toBe('00000020\n')
})

test('however the bytes come in pieces, the text is the same', () => {
  const zeros = fc.integer({ min: 0, max: 80 }).map((length) => new Uint8Array(length))
  const bytes = fc.array(fc.oneof(zeros, fc.uint8Array({ maxLength: 40 }))).map((parts) => Buffer.concat(parts))
  fc.assert(
    fc.property(bytes, fc.nat(200), (bytes, split) => {
      expect(dump(bytes, 0, Math.min(split, bytes.length))).toBe(dump(bytes))
    }),
  )
})

test('what the real one prints', ({ skip }) => {
  if (spawnSync('hexdump', ['-C'], { input: '' }).status !== 0) skip('there is no hexdump on this machine')
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.nat(5), (bytes, repeats) => {
      const all = Buffer.concat(Array.from({ length: repeats + 1 }, () => Buffer.from(bytes)))
      expect(dump(all)).toBe(spawnSync('hexdump', ['-C'], { input: all, encoding: 'latin1' }).stdout)
    }),
    { numRuns: 30 },
  )
})
