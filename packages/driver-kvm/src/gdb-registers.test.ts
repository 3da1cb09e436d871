import { expect, test } from 'vitest'
import { ENCODED, GdbLayout, WRITABLE } from './gdb-registers.ts'
import type { GdbRegister } from './target-description.ts'

const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs']
const WORDS = Object.values(WRITABLE).filter((name) => name !== 'eflags')

/** A description with these registers, in this order. */
function described(...registers: readonly (readonly [string, number])[]): Map<string, GdbRegister> {
  return new Map(registers.map(([name, bits], number) => [name, { name, number, bits }]))
}

const all = [
  ...WORDS.map((name) => [name, 64] as const),
  ['eflags', 32] as const,
  ...SEGMENTS.map((name) => [name, 32] as const),
  ['fs_base', 64] as const,
  ['gs_base', 64] as const,
]

test('each register is read from its place', () => {
  const layout = new GdbLayout(described(...all))
  const bytes = Buffer.alloc(layout.length)
  let at = 0
  all.forEach(([, bits], index) => {
    if (bits === 64) bytes.writeBigUInt64LE(BigInt(index + 1), at)
    else bytes.writeUInt32LE(index + 1, at)
    at += bits / 8
  })
  const registers = layout.registers(bytes)
  const value = (name: string) => all.findIndex(([other]) => other === name) + 1
  for (const [name, theirs] of Object.entries(WRITABLE)) {
    expect(registers[name as keyof typeof WRITABLE], name).toBe(BigInt(value(theirs)))
  }
  expect(registers.cs).toEqual({ selector: value('cs'), base: undefined, limit: undefined, attributes: undefined })
  expect(registers.gs).toMatchObject({ selector: value('gs'), base: BigInt(value('gs_base')) })
  expect(layout.fsBase(bytes)).toBe(BigInt(value('fs_base')))
})

test.each(['rip', 'cr3', 'eflags', 'gs_base'])('without %s, or with another width, it is no layout of ours', (name) => {
  const failing = expect.objectContaining({ code: 'PROTOCOL' })
  expect(() => new GdbLayout(described(...all.filter(([other]) => other !== name)))).toThrow(failing)
  expect(
    () => new GdbLayout(described(...all.map(([other, bits]) => [other, other === name ? 16 : bits] as const))),
  ).toThrow(failing)
})

test('the order of the encoding is that of the manual', () => {
  expect(ENCODED).toEqual('rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' '))
})
