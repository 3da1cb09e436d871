import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LINE_LIMIT, LineBuffer } from './line-buffer.ts'

test('however bytes arrive, the lines are the same', () => {
  const line = fc.uint8Array({ maxLength: 300 }).map((bytes) => bytes.map((byte) => (byte === 10 ? 11 : byte)))
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1 }),
      (lines, steps) => {
        const all = Buffer.concat(lines.flatMap((bytes) => [bytes, Buffer.of(10)]))
        const buffer = new LineBuffer()
        const seen: Uint8Array[] = []
        let at = 0
        for (let step = 0; at < all.length; step++) {
          const length = steps[step % steps.length] ?? 1
          buffer.push(all.subarray(at, at + length))
          at += length
          for (let found = buffer.next(); found; found = buffer.next()) seen.push(found.slice())
        }
        expect(seen.map((bytes) => Buffer.from(bytes))).toEqual(lines.map((bytes) => Buffer.from(bytes)))
      },
    ),
  )
})

test('lines of over the limit are refused, long ones below it are not', () => {
  const buffer = new LineBuffer()
  const chunk = new Uint8Array(2 ** 20)
  for (let length = 0; length + chunk.length <= LINE_LIMIT; length += chunk.length) buffer.push(chunk)
  expect(buffer.next()).toBeUndefined()
  expect(() => buffer.push(Uint8Array.of(1))).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
})
