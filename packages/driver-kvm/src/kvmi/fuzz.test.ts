import { MicrovmiError } from '@microvmi/core'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeEvent } from './event-message.ts'
import { Frames } from './frames.ts'
import { GENERATION_A } from './generation-a.ts'
import { GENERATION_C } from './generation-c.ts'
import { HelloReader } from './handshake.ts'
import { occurrenceOf } from './kinds.ts'
import { eventRegisters } from './kvm-registers.ts'
import { MESSAGE_LIMIT } from './layout.ts'
import { Negotiation } from './negotiation.ts'
import { parseMode, parseOwner } from './owner.ts'

const bytes = fc.uint8Array({ maxLength: 700 })
const anyGeneration = fc.constantFrom(GENERATION_A, GENERATION_C)

/** The result, or the code of the MicrovmiError; any other error is a fault. */
function outcome<T>(call: () => T): T | string {
  try {
    return call()
  } catch (error) {
    if (error instanceof MicrovmiError) return error.code
    throw error
  }
}

/** A thousand cases. */
function property<T extends unknown[]>(
  name: string,
  arbitraries: { [Index in keyof T]: fc.Arbitrary<T[Index]> },
  holds: (...values: T) => void,
): void {
  test(name, () =>
    fc.assert(
      fc.property(fc.tuple<T>(...arbitraries), (values) => holds(...values)),
      { numRuns: 1000 },
    ),
  )
}

describe('events', () => {
  property(
    'any bytes are an event or PROTOCOL',
    [anyGeneration, fc.constantFrom(0, 1), bytes],
    (generation, id, body) => {
      const event = outcome(() => decodeEvent(generation, id, 7, body))
      if (typeof event === 'string') {
        expect(event).toBe('PROTOCOL')
        return
      }
      const occurrence = outcome(() => occurrenceOf(event))
      if (typeof occurrence === 'string') expect(occurrence).toBe('PROTOCOL')
      if (event.name !== 'unhook') expect(eventRegisters(event.view, event.start).architecture).toBe('x86-64')
    },
  )

  property(
    'well begun, of any size and name',
    [anyGeneration, fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 65_535 }), bytes],
    (generation, name, size, own) => {
      const body = Buffer.alloc(generation.eventHeaderLength + 544 + own.length)
      const start = generation.eventHeaderLength
      if (start > 0) body.writeUInt16LE(name, 0)
      else body[4] = name
      body.writeUInt16LE(size, start)
      body.set(own, start + 544)
      const event = outcome(() => decodeEvent(generation, generation.eventMessage, 7, body))
      if (typeof event === 'string') expect(event).toBe('PROTOCOL')
      else outcome(() => occurrenceOf(event))
    },
  )
})

describe('frames', () => {
  const message = fc.record({
    id: fc.integer({ min: 0, max: 65_535 }),
    seq: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    body: fc.record({ length: fc.integer({ min: 0, max: MESSAGE_LIMIT }), fill: fc.integer({ min: 0, max: 255 }) }),
  })

  property(
    'come out as they went in, however they are cut',
    [fc.array(message, { maxLength: 20 }), fc.array(fc.integer({ min: 100, max: 70_000 }), { minLength: 1 })],
    (messages, cuts) => {
      const stream = Buffer.concat(
        messages.map(({ id, seq, body }) => frame(id, seq, Buffer.alloc(body.length, body.fill))),
      )
      const frames = new Frames()
      const seen: { id: number; seq: number; body: Buffer }[] = []
      for (let at = 0, cut = 0; at < stream.length; cut++) {
        const room = frames.room()
        const length = Math.min(room.length, cuts[cut % cuts.length] ?? 1, stream.length - at)
        expect(length).toBeGreaterThan(0)
        room.set(stream.subarray(at, at + length))
        frames.added(length)
        at += length
        for (let one = frames.next(); one; one = frames.next()) {
          const body = Buffer.from(frames.bytes.subarray(one.start, one.start + one.length))
          seen.push({ id: one.id, seq: one.seq, body })
        }
      }
      expect(Buffer.concat(seen.map(({ id, seq, body }) => frame(id, seq, body))).equals(stream)).toBe(true)
    },
  )

  property('over the limit: PROTOCOL at once', [fc.integer({ min: MESSAGE_LIMIT + 1, max: 65_535 })], (size) => {
    const frames = new Frames()
    const header = Buffer.alloc(8)
    header.writeUInt16LE(size, 2)
    frames.room().set(header)
    frames.added(8)
    expect(outcome(() => frames.next())).toBe('PROTOCOL')
  })
})

describe('handshake', () => {
  property('any bytes', [fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 64 })], (given, cut) => {
    const reader = new HelloReader()
    for (let at = 0; at < given.length; ) {
      const missing = reader.missing
      expect(missing).toBeGreaterThan(0)
      const part = given.subarray(at, at + Math.min(cut, missing))
      const said = outcome(() => reader.take(part))
      if (typeof said === 'string') expect(said).toBe('PROTOCOL')
      if (said !== undefined) return
      at += part.length
    }
  })

  property('a size that no handshake has', [fc.integer({ min: 0, max: 2 ** 32 - 1 })], (size) => {
    const head = Buffer.alloc(4)
    head.writeUInt32LE(size, 0)
    const said = outcome(() => new HelloReader().take(head))
    expect(said).toBe(size < 32 || size > 65_536 ? 'PROTOCOL' : undefined)
  })

  property(
    'longer or shorter than ours',
    [fc.integer({ min: 32, max: 2000 }), fc.string({ maxLength: 30 })],
    (size, name) => {
      const given = Buffer.alloc(Math.max(size, 96))
      given.writeUInt32LE(size, 0)
      given.write(name, 32, 63)
      const reader = new HelloReader()
      let said: ReturnType<HelloReader['take']>
      for (let at = 0; at < size; at += 50) said = reader.take(given.subarray(at, Math.min(at + 50, size)))
      expect(said?.uuid).toBe('00000000-0000-0000-0000-000000000000')
      expect(reader.missing).toBe(0)
      expect(said?.name).not.toMatch(/\p{Cc}/u)
    },
  )
})

property(
  'negotiation: any answer is a generation, a question or an error',
  [fc.integer({ min: 0, max: 65_535 }), fc.integer({ min: 0, max: 9 }), bytes],
  (id, seq, body) => {
    const negotiation = new Negotiation()
    const view = new DataView(Uint8Array.from(body).buffer)
    const result = outcome(() => negotiation.take({ id, seq, start: 0, length: body.length }, view))
    if (typeof result === 'string') expect(['PROTOCOL', 'UNSUPPORTED']).toContain(result)
  },
)

property('owner and mode: any text is one, or BAD_ARGUMENT', [fc.string()], (text) => {
  for (const parse of [parseOwner, parseMode]) {
    const result = outcome<unknown>(() => parse(text))
    if (typeof result === 'string') expect(result).toBe('BAD_ARGUMENT')
  }
})

function frame(id: number, seq: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt16LE(id, 0)
  header.writeUInt16LE(body.length, 2)
  header.writeUInt32LE(seq, 4)
  return Buffer.concat([header, body])
}
