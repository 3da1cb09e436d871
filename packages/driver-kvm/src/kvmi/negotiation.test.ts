import { describe, expect, test } from 'vitest'
import type { Generation } from './generation.ts'
import { GENERATION_A, GENERATION_A_5_0 } from './generation-a.ts'
import { GENERATION_C, GENERATION_C_5_10 } from './generation-c.ts'
import { Message } from './message.ts'
import { Negotiation } from './negotiation.ts'
import { Requests } from './requests.ts'

/** What a kernel answers to each message, in turn: an error, and what follows it. */
function negotiate(...answers: readonly (readonly [error: number, hex: string])[]): Generation | undefined {
  const negotiation = new Negotiation()
  const message = new Message()
  let generation: Generation | undefined
  for (const [error, hex] of answers) {
    negotiation.write(message)
    const body = Buffer.concat([Buffer.alloc(8), Buffer.from(hex, 'hex')])
    body.writeInt32LE(error)
    const frame = { id: message.id, seq: negotiation.seq, start: 0, length: body.length }
    generation = negotiation.take(frame, new DataView(Uint8Array.from(body).buffer))
  }
  return generation
}

const VERSION_A = '01000000000000000000010000000000'
const VERSION_SHORT = '0100000000000000'
const VERSION_C = '01000000f81f00000100000000000000'

describe('generations are told apart', () => {
  test.each([
    ['A of kernel 5.4: 16 bytes, the second word zero', [[0, VERSION_A]], GENERATION_A],
    [
      'A of kernel 5.0: 8 bytes, and it has CONTROL_CMD_RESPONSE',
      [
        [0, VERSION_SHORT],
        [0, ''],
      ],
      GENERATION_A_5_0,
    ],
    [
      'the same, where QEMU does not allow it',
      [
        [0, VERSION_SHORT],
        [-1, ''],
      ],
      GENERATION_A_5_0,
    ],
    [
      'C of v12: the largest message is told, and there is no message 22',
      [
        [0, VERSION_C],
        [-2, ''],
      ],
      GENERATION_C,
    ],
    [
      'C of v11: there is',
      [
        [0, VERSION_C],
        [0, ''],
      ],
      GENERATION_C_5_10,
    ],
    [
      'C without features',
      [
        [0, '01000000f81f0000'],
        [-2, ''],
      ],
      GENERATION_C,
    ],
  ] as const)('%s', (_, answers, generation) => {
    expect(negotiate(...answers)).toBe(generation)
  })

  test('v8 and v9 are refused', () => {
    expect(() => negotiate([0, VERSION_SHORT], [-2, ''])).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  })

  test('what no generation answers', () => {
    expect(() => negotiate([0, '01'])).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    expect(() => negotiate([-22, ''])).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    expect(() => negotiate([0, '0200000000000000'])).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  })
})

test('the first kernels differ where they do', () => {
  const message = new Message()
  new Requests(GENERATION_A_5_0).injectException(message, 0, 14, 2, 0n)
  expect([message.bytes[16], message.bytes[17]]).toEqual([14, 1])
  new Requests(GENERATION_A_5_0).injectException(message, 0, 6, undefined, 0n)
  expect(message.bytes[17]).toBe(0)
  expect(() => new Requests(GENERATION_A_5_0).createView(message)).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED' }),
  )
  new Requests(GENERATION_C_5_10).setPageAccess(message, 0, [1], [7])
  expect(message.id).toBe(22)
  new Requests(GENERATION_C_5_10).getMaxGfn(message)
  expect(message.id).toBe(20)
})
