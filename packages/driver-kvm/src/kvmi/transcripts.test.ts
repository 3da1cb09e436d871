import { describe, expect, test } from 'vitest'
import { decodeEvent, encodeAnswer, newValue, oldValue } from './event-message.ts'
import type { Generation } from './generation.ts'
import { GENERATION_A } from './generation-a.ts'
import { GENERATION_C } from './generation-c.ts'
import { occurrenceOf } from './kinds.ts'
import { eventRegisters } from './kvm-registers.ts'
import { HEADER_LENGTH, VCPU_HEADER_LENGTH } from './layout.ts'
import { Message } from './message.ts'
import { Requests } from './requests.ts'
import { EVENT_FOR_LIBKVMI, LIBKVMI, SELFTEST } from './transcripts.testing.ts'

const MSRS = [0x174, 0xc000_0081, 0xc000_0082]
const WRITTEN = new Uint8Array(5).fill(0xa5)
const FRAMES = [0x40, 0x10_0041]

/** The same commands with the same arguments as those whose bytes the transcripts have. */
function commandsOf(generation: Generation, regs: Uint8Array): Record<string, (message: Message) => void> {
  const requests = new Requests(generation)
  return {
    getVersion: (message) => requests.getVersion(message),
    checkCommand: (message) => requests.checkCommand(message, 21),
    checkEvent: (message) => requests.checkEvent(message, 6),
    getInfo: (message) => requests.getInfo(message),
    getMaxGfn: (message) => requests.getMaxGfn(message),
    pauseVcpu: (message) => requests.pauseVcpu(message, 1),
    controlVmEvents: (message) => requests.controlVmEvents(message, 'unhook', true),
    controlEvents: (message) => requests.controlEvents(message, 1, 'cr', true),
    controlCr: (message) => requests.controlCr(message, 1, 3, true),
    controlMsr: (message) => requests.controlMsr(message, 1, 0xc000_0100, true),
    // libkvmi's transcript turns it off, the selftest's on.
    controlSinglestep: (message) => requests.controlSinglestep(message, 1, generation === GENERATION_C),
    getRegisters: (message) => requests.getRegisters(message, 1, MSRS),
    setRegisters: (message) => requests.setRegisters(message, 1, regs),
    readPhysical: (message) => requests.readPhysical(message, 0x1_0064, 0x123),
    writePhysical: (message) => requests.writePhysical(message, 0x1_0004_0008, WRITTEN),
    injectException: (message) => requests.injectException(message, 1, 14, 0x11, 0x12_3456_7890n),
    setPageAccess: (message) => requests.setPageAccess(message, 0, FRAMES, [5, 7]),
    createView: (message) => requests.createView(message),
    destroyView: (message) => requests.destroyView(message, 1),
    switchView: (message) => requests.switchView(message, 1, 1),
    changeGfn: (message) => requests.changeGfn(message, 0, 1, 0x40, 0x41),
  }
}

/** The general registers of a transcript. */
function regsOf(hex: string): Uint8Array {
  return Buffer.from(hex, 'hex').subarray(HEADER_LENGTH + VCPU_HEADER_LENGTH)
}

function written(write: (message: Message) => void): string {
  const message = new Message()
  // What an earlier message has left in the buffer must not show.
  message.begin(1, 200)
  message.setBytes(0, new Uint8Array(200).fill(0xff))
  write(message)
  message.seq = 0
  return Buffer.from(message.bytes).toString('hex')
}

describe.each([
  ['A, as libkvmi sends it', GENERATION_A, LIBKVMI],
  ['C, as the selftest sends it', GENERATION_C, SELFTEST],
] as const)('%s', (_, generation, transcript: Readonly<Record<string, string>>) => {
  const commands = commandsOf(generation, regsOf(transcript.setRegisters ?? ''))

  test.each(Object.keys(transcript).filter((name) => name in commands))('%s', (name) => {
    expect(written(commands[name] ?? (() => {}))).toBe(transcript[name])
  })

  test('a CR event is answered', () => {
    const event = crEvent(generation)
    const pass = (message: Message) =>
      encodeAnswer(generation, message, event, { action: 'continue', value: 0x22_9000n })
    expect(written(pass)).toBe((transcript.answerCr ?? '').replace(/.{16}$/, '0090220000000000'))
  })
})

test('a breakpoint is answered as the selftest does', () => {
  const event = { ...crEvent(GENERATION_C), name: 'breakpoint' } as const
  const retry = (message: Message) => encodeAnswer(GENERATION_C, message, event, { action: 'retry' })
  expect(written(retry)).toBe(SELFTEST.answerBreakpoint)
})

test('an event is read as libkvmi reads it', () => {
  const event = crEvent(GENERATION_A)
  expect(event).toMatchObject({ name: 'cr', vcpu: 1 })
  expect([oldValue(event), newValue(event)]).toEqual(transcribed())
  expect(occurrenceOf(event)).toMatchObject({ kind: 'cr', fields: { register: 'cr3', old: oldValue(event) } })
  // The guest has not changed it yet.
  expect(eventRegisters(event.view, event.start).cr3).toBe(oldValue(event))
})

/** The last two words of the event. */
function transcribed(): bigint[] {
  const bytes = Buffer.from(EVENT_FOR_LIBKVMI, 'hex')
  return [bytes.readBigUInt64LE(bytes.length - 16), bytes.readBigUInt64LE(bytes.length - 8)]
}

/** Of generation C, it has a header more, and its number there. */
function crEvent(generation: Generation) {
  const body = Buffer.from(EVENT_FOR_LIBKVMI, 'hex').subarray(HEADER_LENGTH)
  const header = Buffer.alloc(generation.eventHeaderLength)
  if (header.length > 0) header.writeUInt16LE(generation.events.cr ?? 0, 0)
  return decodeEvent(generation, generation.eventMessage, 0, Buffer.concat([header, body]))
}
