import { type BackendEvent, type EventKind, MicrovmiError } from '@microvmi/core/driver'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { abiOf, KNOWN_MINORS } from './abi/versions.ts'
import { FLAG, INSTRUCTION_DATA, READ_DATA, SLOT, settableRegisters } from './abi/vm-event.ts'
import { checkParts, emulate, proceed, setRegisters, splitChanges } from './replies.ts'

const abi = abiOf({ major: 4, minor: 17, extra: '' })
const slotOf = (flags: number) => {
  const slot = new DataView(new ArrayBuffer(abi.slotLength))
  slot.setUint32(SLOT.flags, flags, true)
  return slot
}
const flagsOf = (slot: DataView) => slot.getUint32(SLOT.flags, true)
const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })

test('a response keeps of its request only whether a vCPU waits', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), (flags) => {
      const slot = slotOf(flags)
      proceed(slot)
      expect(flagsOf(slot)).toBe(flags & FLAG.vcpuPaused)
    }),
  )
})

test('registers: what is asked for changes, everything else stays as it came', () => {
  for (const minor of KNOWN_MINORS) {
    const version = abiOf({ major: 4, minor, extra: '' })
    const offsets = settableRegisters(version)
    const names = fc.dictionary(fc.constantFrom(...offsets.keys()), word, { maxKeys: 6 })
    fc.assert(
      fc.property(names, fc.uint8Array({ minLength: 16, maxLength: 64 }), (changes, noise) => {
        const slot = new DataView(new ArrayBuffer(version.slotLength))
        for (let at = 0; at < slot.byteLength; at++) slot.setUint8(at, noise[at % noise.length] ?? 0)
        slot.setUint32(SLOT.flags, FLAG.vcpuPaused, true)
        const before = new Uint8Array(slot.buffer.slice(0))
        setRegisters(slot, changes, version)
        expect(flagsOf(slot)).toBe(FLAG.vcpuPaused | FLAG.setRegisters)
        const expected = new DataView(before.buffer)
        expected.setUint32(SLOT.flags, FLAG.vcpuPaused | FLAG.setRegisters, true)
        for (const [name, value] of Object.entries(changes)) expected.setBigUint64(offsets.get(name) ?? -1, value, true)
        expect(new Uint8Array(slot.buffer)).toEqual(new Uint8Array(expected.buffer))
      }),
      { numRuns: 30 },
    )
  }
})

test('a change goes into the response or is written by itself: one of both, and none is lost', () => {
  const names = fc.constantFrom('rax', 'r15', 'rip', 'rflags', 'cr3', 'cr0', 'efer', 'dr7')
  fc.assert(
    fc.property(fc.dictionary(names, fc.option(word, { nil: undefined })), (changes) => {
      const { inSlot, others } = splitChanges(changes, abi)
      const given = Object.entries(changes).filter(([, value]) => value !== undefined)
      expect({ ...inSlot, ...others }).toEqual(Object.fromEntries(given))
      expect(Object.keys(inSlot).filter((name) => name in others)).toEqual([])
    }),
  )
})

describe('emulation', () => {
  test('of an instruction: its bytes and zeros behind, whatever was there; one too long is refused before a change', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 24 }), (instruction) => {
        const slot = slotOf(FLAG.vcpuPaused)
        const bytes = new Uint8Array(slot.buffer)
        bytes.fill(0xa5, INSTRUCTION_DATA.bytes)
        const before = bytes.slice()
        if (instruction.length > INSTRUCTION_DATA.length) {
          expect(() => emulate(slot, { instruction })).toThrow(MicrovmiError)
          expect(bytes).toEqual(before)
          return
        }
        emulate(slot, { instruction })
        expect(flagsOf(slot)).toBe(FLAG.vcpuPaused | FLAG.emulate | FLAG.setEmulatedInstruction)
        const all = new Uint8Array(INSTRUCTION_DATA.length)
        all.set(instruction)
        expect(bytes.subarray(INSTRUCTION_DATA.bytes, INSTRUCTION_DATA.bytes + INSTRUCTION_DATA.length)).toEqual(all)
      }),
    )
  })

  test('with data: never past the slot', () => {
    const room = abi.slotLength - READ_DATA.bytes
    fc.assert(
      fc.property(fc.integer({ min: 0, max: room + 20 }), (length) => {
        const slot = slotOf(FLAG.vcpuPaused)
        const data = new Uint8Array(length).fill(7)
        if (length > room) {
          expect(() => emulate(slot, { data })).toThrow(MicrovmiError)
          expect(flagsOf(slot)).toBe(FLAG.vcpuPaused)
          return
        }
        emulate(slot, { data })
        expect(slot.getUint32(READ_DATA.size, true)).toBe(length)
        expect(flagsOf(slot)).toBe(FLAG.vcpuPaused | FLAG.emulate | FLAG.setEmulatedReadData)
      }),
    )
  })
})

function eventOf(kind: EventKind, fields: object = {}): BackendEvent {
  return { kind, armed: [1], vcpu: 0, stops: 'vcpu', complete: true, fields } as BackendEvent
}

test('parts that a response has no room for, or that come too late, are refused', () => {
  expect(() => checkParts(eventOf('int3'), { emulate: true, registers: { rax: 1n } })).toThrow(/not for both/)
  expect(() => checkParts(eventOf('msr'), { deny: true })).toThrow(/already/)
  expect(() => checkParts(eventOf('cr'), { deny: true })).not.toThrow()
  expect(() => checkParts(eventOf('msr'), { deny: false })).not.toThrow()
  expect(() => checkParts(eventOf('memory', { access: 'rx' }), { deny: true })).toThrow(/this access is none/)
  expect(() => checkParts(eventOf('memory', { access: 'rw' }), { deny: true })).not.toThrow()
  expect(() => checkParts(eventOf('io'), { step: true })).toThrow(/the one behind it/)
  const instruction = Uint8Array.of(0x90)
  expect(() => checkParts(eventOf('memory', { access: 'r' }), { emulate: { instruction } })).toThrow(/int3 only/)
  expect(() => checkParts(eventOf('breakpoint'), { emulate: { instruction } })).not.toThrow()
})
