import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodePacket, PacketReader } from './packets.ts'

const failing = expect.objectContaining({ code: 'PROTOCOL' })
const bytes = (text: string) => Buffer.from(text, 'latin1')
const OPTIONS = { stub: 'the stub', limit: 1000 }

function read(...parts: string[]): string[] {
  const reader = new PacketReader(OPTIONS)
  const packets: string[] = []
  for (const part of parts) {
    reader.push(bytes(part))
    for (let packet = reader.next(); packet !== undefined; packet = reader.next()) packets.push(packet)
  }
  return packets
}

test('packets as in the manual', () => {
  expect(encodePacket('g')).toBe('$g#67')
  expect(encodePacket('')).toBe('$#00')
  expect(read('+$OK#9a+', '-$T05thread:p01.01;', '#06')).toEqual(['OK', 'T05thread:p01.01;'])
})

test('escapes and repetitions', () => {
  const data = '0* '
  expect(read(encodePacket(data))).toEqual(['0000'])
  expect(read(encodePacket('a}\x03b'))).toEqual(['a#b'])
  expect(() => read(encodePacket('* '))).toThrow(failing)
})

test('a wrong checksum, something else than a packet, a packet without end', () => {
  expect(() => read('$OK#9b')).toThrow(failing)
  expect(() => read('OK')).toThrow(failing)
  expect(() => read(`$${'x'.repeat(OPTIONS.limit + 10)}`)).toThrow(failing)
})

test('however a packet arrives, it is the same; whatever arrives, nothing else is thrown', () => {
  const data = fc.stringMatching(/^[0-9a-zA-Z;:,=.]*$/)
  fc.assert(
    fc.property(data, fc.nat(200), (data, at) => {
      const packet = encodePacket(data)
      expect(read(packet.slice(0, at), packet.slice(at))).toEqual([data])
    }),
  )
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary', maxLength: 30 })), (parts) => {
      try {
        read(...parts)
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
    { numRuns: 1000 },
  )
})

test('a repetition of repetitions does not grow beyond the limit', () => {
  expect(() => read(encodePacket(`0${'*~'.repeat(20)}`))).toThrow(failing)
})

test('acknowledgements and packets come in their order, behind any cut', () => {
  const data = fc.stringMatching(/^[0-9a-zA-Z;:,=.]*$/)
  const said = fc.oneof(
    fc.boolean().map((acknowledged) => ({ acknowledged })),
    data.map((one) => ({ data: one })),
  )
  fc.assert(
    fc.property(fc.array(said), fc.array(fc.nat(40), { minLength: 1 }), (all, cuts) => {
      const text = all.map((one) => ('data' in one ? encodePacket(one.data) : one.acknowledged ? '+' : '-')).join('')
      const reader = new PacketReader(OPTIONS)
      const found: unknown[] = []
      for (let at = 0, cut = 0; at < text.length; cut++) {
        const length = (cuts[cut % cuts.length] ?? 0) + 1
        reader.push(bytes(text.slice(at, at + length)))
        for (let one = reader.nextOfAll(); one; one = reader.nextOfAll()) found.push(one)
        at += length
      }
      expect(found).toEqual(all)
    }),
  )
})
