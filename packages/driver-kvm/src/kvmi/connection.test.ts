import { MicrovmiError } from '@microvmi/core'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Channel } from './channel.ts'
import { Connection } from './connection.ts'
import type { KvmiEvent } from './event-message.ts'
import { Frames } from './frames.ts'
import { GENERATION_A } from './generation-a.ts'
import { GENERATION_C } from './generation-c.ts'
import { commandId } from './requests.ts'

/** What the other side says, whatever it is asked, in pieces; then nothing more. */
class ScriptedChannel {
  readonly #pieces: Buffer[]
  isOpen = true

  constructor(pieces: readonly Buffer[]) {
    this.#pieces = [...pieces]
  }

  get hasEnded(): boolean {
    return !this.isOpen
  }

  send(): void {}

  receive(into: Uint8Array): number {
    const length = this.receiveNow(into)
    if (length > 0) return length
    throw new MicrovmiError('TIMEOUT', 'nothing more comes')
  }

  receiveNow(into: Uint8Array): number {
    const piece = this.#pieces.shift()
    if (!piece) return 0
    const length = Math.min(piece.length, into.length)
    into.set(piece.subarray(0, length))
    if (length < piece.length) this.#pieces.unshift(piece.subarray(length))
    return length
  }

  watch(): void {}
  unwatch(): void {}
  keepAlive(): void {}

  close(): void {
    this.isOpen = false
  }
}

/** Of `Channel` what a connection uses: its private parts have no type that another class could have. */
function connectionOver(pieces: readonly Buffer[], isA: boolean): Connection {
  const channel = new ScriptedChannel(pieces) as unknown as Channel
  return new Connection(channel, new Frames(), isA ? GENERATION_A : GENERATION_C, 1000, 0)
}

const MOST_COMMANDS = 150

/** Mostly answers that could be right, some events, and whatever else. */
interface Said {
  readonly id: number | undefined
  readonly seq: number
  readonly error: number
  readonly body: Uint8Array
}

const message: fc.Arbitrary<Said> = fc.record({
  id: fc.oneof(
    { weight: 8, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 65_535 }) },
  ),
  seq: fc.integer({ min: 0, max: MOST_COMMANDS + 2 }),
  error: fc.oneof(fc.constant(0), fc.integer({ min: -1000, max: 1000 })),
  body: fc.uint8Array({ maxLength: 40 }),
})

function frame(id: number, seq: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt16LE(id, 0)
  header.writeUInt16LE(body.length, 2)
  header.writeUInt32LE(seq, 4)
  return Buffer.concat([header, body])
}

test('whatever the other side says, a command ends, and faults end the connection', () => {
  const noise = fc.uint8Array({ maxLength: 30 })
  const piece = fc.oneof<fc.MaybeWeightedArbitrary<Said | Uint8Array>[]>(
    { weight: 9, arbitrary: message },
    { weight: 1, arbitrary: noise },
  )
  const pieces = fc.array(piece, { maxLength: 60 })
  const holds = (isA: boolean, said: readonly (Said | Uint8Array)[], count: number) => {
    const read = commandId(isA ? GENERATION_A : GENERATION_C, 'readPhysical')
    const bytes = said.map((one) => (one instanceof Uint8Array ? Buffer.from(one) : frameOf(one, read)))
    const connection = connectionOver(bytes, isA)
    const events: KvmiEvent[] = []
    connection.onEvent = (event) => events.push(event)
    const taken = new Set<number>()
    let code = 'done'
    try {
      connection.askAll(
        count,
        (one) => connection.requests.readPhysical(one, 0x1000, 16),
        (_, index) => {
          expect(taken.has(index)).toBe(false)
          expect(index).toBeLessThan(count)
          taken.add(index)
        },
      )
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      code = error.code
    }
    expect(['done', 'TIMEOUT', 'PROTOCOL']).toContain(code)
    if (code === 'done') expect(taken.size).toBe(count)
    expect(connection.hasEnded).toBe(code === 'PROTOCOL')
    if (code === 'PROTOCOL') expect(() => connection.poll()).toThrow(expect.objectContaining({ code: 'VM_GONE' }))
  }
  fc.assert(fc.property(fc.boolean(), pieces, fc.integer({ min: 0, max: MOST_COMMANDS }), holds), { numRuns: 2000 })
})

function frameOf({ id, seq, error, body }: Said, read: number): Buffer {
  const code = Buffer.alloc(8)
  code.writeInt32LE(error)
  return frame(id ?? read, seq, Buffer.concat([code, body]))
}

test('answers in any order, cut anywhere, each go to their command', () => {
  const order = fc.shuffledSubarray(
    Array.from({ length: 60 }, (_, index) => index),
    { minLength: 60 },
  )
  const cuts = fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 20 })
  const holds = (isA: boolean, indexes: readonly number[], lengths: readonly number[]) => {
    const read = commandId(isA ? GENERATION_A : GENERATION_C, 'readPhysical')
    const stream = Buffer.concat(
      indexes.map((index) => frame(read, index + 1, Buffer.concat([Buffer.alloc(8), Buffer.of(index)]))),
    )
    const pieces: Buffer[] = []
    for (let at = 0, cut = 0; at < stream.length; cut++) {
      const length = lengths[cut % lengths.length] ?? 1
      pieces.push(stream.subarray(at, at + length))
      at += length
    }
    const found: number[] = []
    connectionOver(pieces, isA).askAll(
      indexes.length,
      (one) => one.begin(read, 16),
      ({ bytes, start, length }, index) => {
        expect(length).toBe(1)
        found[index] = bytes[start] ?? -1
      },
    )
    expect(found).toEqual(Array.from({ length: 60 }, (_, index) => index))
  }
  fc.assert(fc.property(fc.boolean(), order, cuts, holds), { numRuns: 500 })
})
