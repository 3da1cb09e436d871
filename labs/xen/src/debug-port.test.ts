import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frames } from './debug-port.ts'

const words = fc.string().filter((text) => !text.includes('\x02'))
const frame = fc.record({ words, fifo: fc.integer({ min: 1, max: 4 }), bytes: fc.uint8Array({ maxLength: 300 }) })

test('frames come out of the midst of other words, however the bytes are cut', () => {
  fc.assert(
    fc.property(fc.array(frame), fc.array(fc.nat({ max: 50 }), { minLength: 1 }), (all, cuts) => {
      const printed = Buffer.concat(
        all.flatMap(({ words, fifo, bytes }) => [
          Buffer.from(words),
          Buffer.from([2, fifo, bytes.length & 0xff, bytes.length >> 8]),
          bytes,
        ]),
      )
      const taken: { fifo: number; bytes: number[] }[] = []
      const take = frames((fifo, bytes) => taken.push({ fifo, bytes: [...bytes] }))
      for (let at = 0, cut = 0; at < printed.length; cut++) {
        const length = (cuts[cut % cuts.length] ?? 0) + 1
        take(printed.subarray(at, at + length))
        at += length
      }
      expect(taken).toEqual(all.map(({ fifo, bytes }) => ({ fifo, bytes: [...bytes] })))
    }),
  )
})
