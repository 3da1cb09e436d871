import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decode, INSTRUCTIONS, type Instruction, LONGEST, lengthOf } from './instructions.ts'

const instruction = fc.constantFrom(...INSTRUCTIONS)

/** Bytes of an instruction with these operands. */
function encoded({ opcode, operation }: Instruction, operands: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LONGEST)
  bytes.set(opcode)
  bytes.set(operands.subarray(0, LONGEST - opcode.length), opcode.length)
  if (operation !== undefined) bytes[2] = (operation << 4) | ((bytes[2] ?? 0) & 15)
  return bytes
}

test('each instruction is decoded as itself, whatever its operands', () => {
  fc.assert(
    fc.property(instruction, fc.uint8Array({ minLength: LONGEST, maxLength: LONGEST }), (one, operands) => {
      expect(decode(encoded(one, operands))).toBe(one)
    }),
  )
})

test('an instruction that is cut off is none', () => {
  fc.assert(
    fc.property(
      instruction,
      fc.uint8Array({ minLength: LONGEST, maxLength: LONGEST }),
      fc.nat(),
      (one, operands, cut) => {
        const bytes = encoded(one, operands).subarray(0, cut % lengthOf(one))
        expect(decode(bytes)).toBeUndefined()
      },
    ),
  )
})

test('any bytes are an instruction that fits, or none', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), fc.nat(25), (bytes, at) => {
      const found = decode(bytes, at)
      if (found) expect(at + lengthOf(found)).toBeLessThanOrEqual(bytes.length)
    }),
  )
})

test('no instruction is longer than the longest', () => {
  expect(Math.max(...INSTRUCTIONS.map(lengthOf))).toBe(LONGEST)
})

test('the documentation has every instruction with its bytes', () => {
  const text = readFileSync(new URL('../docs/instructions.md', import.meta.url), 'utf8')
  for (const { name, opcode } of INSTRUCTIONS) {
    const bytes = opcode.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
    expect(text.split('\n').some((line) => line.includes(`\`${bytes}`) && line.includes(`\`${name}`))).toBe(true)
  }
})
