import type { RegisterChanges } from '@microvmi/core/driver'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FakePartition } from './partition.testing.ts'
import { EXPLICIT_SUSPEND, REGISTERS } from './register-names.ts'
import { LiveRegisters } from './registers.ts'

const nameOf = (register: string) => REGISTERS.find((known) => known.register === register)?.name ?? -1

test('the numbers are those of HV_REGISTER_NAME', () => {
  expect(Object.fromEntries(REGISTERS.map(({ register, name }) => [register, name]))).toMatchObject({
    ...{ rax: 0x20000, rdi: 0x20007, r8: 0x20008, r15: 0x2000f, rip: 0x20010, rflags: 0x20011 },
    ...{ cr0: 0x40000, cr2: 0x40001, cr3: 0x40002, cr4: 0x40003, cr8: 0x40004, dr6: 0x50004, dr7: 0x50005 },
    ...{ es: 0x60000, gs: 0x60005, ldt: 0x60006, tr: 0x60007, idt: 0x70000, gdt: 0x70001 },
    ...{ tsc: 0x80000, efer: 0x80001, kernelGsBase: 0x80002, apicBase: 0x80003, pat: 0x80004, sysenterCs: 0x80005 },
    ...{ sysenterEip: 0x80006, sysenterEsp: 0x80007, star: 0x80008, lstar: 0x80009, cstar: 0x8000a, fmask: 0x8000b },
  })
  expect(new Set(REGISTERS.map(({ name }) => name)).size).toBe(REGISTERS.length)
})

test('reading suspends a vCPU that runs, and only for that moment', () => {
  const partition = new FakePartition(1)
  const registers = new LiveRegisters(partition)
  expect(registers.read(1).rax).toBe(2n)
  expect(partition.calls).toEqual(['1: 0x0 = 1', '1: 0x0 = 0'])
  partition.suspend()
  partition.calls.length = 0
  registers.read(1)
  registers.write(1, { rax: 5n })
  expect(partition.calls).toEqual([`1: 0x${nameOf('rax').toString(16)} = 5`])
})

test('a write that fails lets the vCPU go on', () => {
  const partition = new FakePartition(1)
  const registers = new LiveRegisters(partition)
  partition.refused = nameOf('cr3')
  expect(() => registers.write(0, { cr3: 1n })).toThrow('refused')
  expect(partition.calls.at(-1)).toBe('0: 0x0 = 0')
})

test('what is written reads back, and nothing else changes', () => {
  const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
  const segment = fc.record({
    ...{ base: u64, limit: fc.nat(0xffff_ffff), selector: fc.nat(0xffff) },
    attributes: fc.nat(0xffff).map((bits) => bits & 0xf0ff),
  })
  const table = fc.record({ base: u64, limit: fc.nat(0xffff) })
  const anyChange = { rax: u64, rip: u64, cr3: u64, dr7: u64, lstar: u64, cs: segment, tr: segment, gdt: table }
  fc.assert(
    fc.property(fc.record(anyChange, { requiredKeys: [] }), fc.nat(1), (changes: RegisterChanges, vcpu) => {
      const partition = new FakePartition(1)
      const registers = new LiveRegisters(partition)
      const before = registers.read(vcpu)
      registers.write(vcpu, changes)
      expect(registers.read(vcpu)).toEqual({ ...before, ...changes })
      expect(partition.isSuspended()).toBe(false)
    }),
  )
})

test('a register that the library does not give is absent; one that every vCPU has is missed', () => {
  const partition = new FakePartition(1)
  for (const registers of partition.registers) registers.delete(nameOf('cstar'))
  const registers = new LiveRegisters(partition)
  expect(registers.read(0).cstar).toBeUndefined()
  expect(registers.writable.has('cstar')).toBe(false)
  expect(registers.writable.has('tsc')).toBe(false)
  for (const each of partition.registers) each.delete(nameOf('cr2'))
  expect(() => new LiveRegisters(partition)).toThrow(/does not give cr2/)
  for (const each of partition.registers) each.delete(EXPLICIT_SUSPEND)
  expect(() => registers.read(0)).toThrow(/does not tell whether vCPU 0 is suspended/)
})
