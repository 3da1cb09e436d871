import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CPU, LAPIC_REGISTERS, MTRR, XSAVE } from './hvm-context.ts'
import { findRecord, hasInterruptUnderWay, registersIn } from './saved-domain.ts'

const records = fc.array(
  fc.record({
    code: fc.integer({ min: 1, max: 20 }),
    instance: fc.integer({ min: 0, max: 3 }),
    bytes: fc.uint8Array({ maxLength: 40 }),
  }),
  { maxLength: 12 },
)
interface Saved {
  readonly code: number
  readonly instance: number
  readonly bytes: Uint8Array
}

const savedOf = (all: readonly Saved[]) => {
  const out: number[] = []
  for (const { code, instance, bytes } of all) {
    const head = new DataView(new ArrayBuffer(8))
    head.setUint16(0, code, true)
    head.setUint16(2, instance, true)
    head.setUint32(4, bytes.length, true)
    out.push(...new Uint8Array(head.buffer), ...bytes)
  }
  return Uint8Array.from(out)
}

describe('a record in a whole saved domain', () => {
  test('is the first of its code and instance', () => {
    fc.assert(
      fc.property(records, fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 3 }), (all, code, instance) => {
        const wanted = all.find((one) => one.code === code && one.instance === instance)
        const found = findRecord(savedOf(all), code, instance)
        const bytes = found && new Uint8Array(found.buffer, found.byteOffset, found.byteLength)
        expect(bytes && [...bytes]).toEqual(wanted && [...wanted.bytes])
      }),
    )
  })

  test('is never outside of bytes that make no sense', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(3), fc.nat(3), (bytes, code, instance) => {
        const found = findRecord(bytes, code, instance)
        if (found) expect(found.byteOffset + found.byteLength).toBeLessThanOrEqual(bytes.byteOffset + bytes.byteLength)
      }),
    )
  })
})

test('what is loaded are the registers of all vCPUs, and nothing that moves on while they are changed', () => {
  const [HEADER, END] = [1, 0]
  const loaded = [HEADER, CPU.code, XSAVE.code, MTRR.code, END]
  fc.assert(
    fc.property(records, (all) => {
      const whole = [...all, { code: END, instance: 0, bytes: new Uint8Array(0) }]
      expect([...registersIn(savedOf(whole))]).toEqual([...savedOf(whole.filter(({ code }) => loaded.includes(code)))])
    }),
  )
  expect(loaded).not.toContain(LAPIC_REGISTERS.code)
})

describe('an interrupt is under way', () => {
  /** A vCPU of two, with what its local APIC has in service, and its task priority (Intel SDM volume 3A, table 11-1). */
  const withVcpu = (vector: number | undefined, taken: { readonly interrupts: boolean; readonly priority: number }) => {
    const cpu = new DataView(new ArrayBuffer(CPU.length))
    cpu.setBigUint64(648, taken.interrupts ? 0x202n : 2n, true)
    const lapic = new DataView(new ArrayBuffer(LAPIC_REGISTERS.length))
    lapic.setUint32(0x80, taken.priority, true)
    if (vector !== undefined) lapic.setUint32(0x100 + (vector >>> 5) * 16, 1 << (vector & 31), true)
    const other = new Uint8Array(LAPIC_REGISTERS.length)
    return savedOf([
      { code: CPU.code, instance: 0, bytes: new Uint8Array(CPU.length) },
      { code: CPU.code, instance: 1, bytes: new Uint8Array(cpu.buffer) },
      { code: LAPIC_REGISTERS.code, instance: 0, bytes: other },
      { code: LAPIC_REGISTERS.code, instance: 1, bytes: new Uint8Array(lapic.buffer) },
    ])
  }

  test.each([
    ['the vCPU takes interrupts of its class', 0xf3, true, 0x10, true],
    ['the lowest vector', 0x20, true, 0x1f, true],
    ['the highest vector', 0xff, true, 0xef, true],
    ['none is in service', undefined, true, 0, false],
    ['its handler runs, with interrupts off', 0xf3, false, 0x10, false],
    ['its handler runs, at its priority', 0xd1, true, 0xd0, false],
  ])('%s', (_, vector, interrupts, priority, isUnderWay) => {
    expect(hasInterruptUnderWay(withVcpu(vector, { interrupts, priority }))).toBe(isUnderWay)
  })

  test('bytes that make no sense have none', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(hasInterruptUnderWay(bytes)).toBe(false)
      }),
    )
  })
})
