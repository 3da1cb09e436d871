import { MicrovmiError } from '@microvmi/core/driver'
import { beforeEach, expect, test, vi } from 'vitest'
import { HvmRegisters } from './registers.ts'
import type { Xen } from './xen.ts'
import { ERRNO } from './xen-errors.ts'

const ENOBUFS = 105
let number = 0
vi.mock('./libraries.ts', () => ({ errno: () => number }))

/** What Xen has saved of the vCPU: the records, by type code. */
const saved = new Map<number, Uint8Array>()
const calls: { readonly code: number; readonly size: number }[] = []

function partial(_xch: number, _domid: number, code: number, _vcpu: number, into: Uint8Array, size: number): number {
  calls.push({ code, size })
  const record = saved.get(code)
  number = record === undefined ? ERRNO.ENODATA : size < record.length ? ENOBUFS : 0
  if (number !== 0) return -1
  into.set(record ?? [])
  return 0
}

/** Calls that write: `one` a vCPU's user registers, `all` the registers of the domain. */
const writes: string[] = []
const xc = {
  domain_hvm_getcontext_partial: partial,
  domain_pause: () => 0,
  domain_unpause: () => 0,
  vcpu_getcontext: () => 0,
  vcpu_setcontext: () => writes.push('one'),
  domain_hvm_getcontext(_xch: number, _domid: number, into: Uint8Array | null) {
    const cpu = saved.get(CPU) ?? new Uint8Array(0)
    if (into) {
      new DataView(into.buffer).setUint16(0, CPU, true)
      new DataView(into.buffer).setUint32(4, cpu.length, true)
      into.set(cpu, 8)
    }
    return 8 + cpu.length
  },
  domain_hvm_setcontext: () => writes.push('all'),
}
const xen = { handle: 1, libraries: { xc } } as unknown as Xen

const CPU = 2
const XSAVE = 16
/** Where the records have CR4 (bit 18: OSXSAVE) and XCR0 (xen/arch-x86/hvm/save.h). */
const CR4 = 680
const XCR0 = 8

beforeEach(() => {
  saved.clear()
  calls.length = 0
  writes.length = 0
  saved.set(CPU, new Uint8Array(1032))
})

test("a vCPU's XCR0 is asked for where it says something, and with more than a page of room where that is needed", () => {
  const registers = new HvmRegisters(xen, 1)
  expect(registers.read(0).xcr0).toBeUndefined()
  expect(calls.map(({ code }) => code)).not.toContain(XSAVE)
  const cpu = new Uint8Array(1032)
  new DataView(cpu.buffer).setBigUint64(CR4, 1n << 18n, true)
  saved.set(CPU, cpu)
  expect(registers.read(0).xcr0).toBeUndefined()
  // With AMX.
  const state = new Uint8Array(11_008)
  state[XCR0] = 7
  saved.set(XSAVE, state)
  expect(registers.read(0).xcr0).toBe(7n)
  expect(registers.read(0).xcr0).toBe(7n)
  const sizes = calls.filter(({ code }) => code === XSAVE).map(({ size }) => size)
  expect(sizes).toEqual([4096, 4096, 16_384, 16_384])
})

test('a record that is longer than any that there is, and none at all of the registers, are errors', () => {
  const registers = new HvmRegisters(xen, 1)
  saved.set(CPU, new Uint8Array(5000))
  expect(() => registers.read(0)).toThrow(MicrovmiError)
  expect(calls).toHaveLength(1)
  saved.delete(CPU)
  expect(() => registers.read(0)).toThrow('is it online?')
})

/** Where struct hvm_hw_cpu_xsave has XSTATE_BV (Intel SDM volume 1, section 13.4.2), behind what is before the area. */
const XSTATE_BV = 24 + 512

test.each([
  [0b011n, 'one'],
  [0b111n, 'all'],
  [1n << 62n, 'all'],
])('a vCPU with states 0x%x in use: what x87 and SSE do not have is kept', (states, way) => {
  const cpu = new Uint8Array(1032)
  new DataView(cpu.buffer).setBigUint64(CR4, 1n << 18n, true)
  saved.set(CPU, cpu)
  const state = new Uint8Array(832)
  new DataView(state.buffer).setBigUint64(XSTATE_BV, states, true)
  saved.set(XSAVE, state)
  new HvmRegisters(xen, 1).write(0, { rax: 1n })
  expect(writes).toEqual([way])
})

test('a vCPU without XSAVE has no such states, and other registers are written with those of all vCPUs', () => {
  const registers = new HvmRegisters(xen, 1)
  registers.write(0, { rax: 1n })
  registers.write(0, { dr0: 1n })
  expect(writes).toEqual(['one', 'all'])
})
