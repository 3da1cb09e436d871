import fc from 'fast-check'
import { expect, test } from 'vitest'
import { assemble } from './assembler.ts'
import { decode, INSTRUCTIONS, type Instruction, lengthOf, REGISTER_NAMES } from './instructions.ts'

const register = fc.constantFrom(...REGISTER_NAMES)
const signed16 = fc.integer({ min: -0x8000, max: 0x7fff })
const address = fc.tuple(register, signed16).map(([base, by]) => `[${base}${by < 0 ? by : `+${by}`}]`)

/** Operands as they are written, for an instruction. */
function operandsOf({ operands, name }: Instruction): fc.Arbitrary<string> {
  const written = (...parts: fc.Arbitrary<string>[]) => fc.tuple(...parts).map((all) => all.join(', '))
  const number = (min: bigint, max: bigint) => fc.bigInt({ min, max }).map(String)
  switch (operands) {
    case 'none':
      return fc.constant('')
    case 'register':
    case 'selector':
      return register
    case 'pair':
      return written(register, register)
    case 'load':
      return written(register, address)
    case 'store':
      return written(address, register)
    case 'imm32':
      return written(register, name === 'mov' ? number(0n, 2n ** 32n - 1n) : number(-(2n ** 31n), 2n ** 31n - 1n))
    case 'imm64':
      return written(register, number(2n ** 32n, 2n ** 64n - 1n))
    case 'shift':
      return written(register, number(0n, 63n))
    case 'imm8':
      return number(0n, 255n)
    case 'relative':
      return number(0n, 2n ** 31n - 1n)
    case 'from-control':
      return written(register, fc.constantFrom('cr0', 'cr2', 'cr3', 'cr4', 'cr8'))
    case 'to-control':
      return written(fc.constantFrom('cr0', 'cr2', 'cr3', 'cr4', 'cr8'), register)
    case 'table':
      return register.map((base) => `[${base}]`)
  }
}

const line = fc
  .constantFrom(...INSTRUCTIONS)
  .chain((instruction) => operandsOf(instruction).map((operands) => ({ instruction, operands })))

test('a program decodes to the instructions that were written', () => {
  fc.assert(
    fc.property(fc.array(line, { maxLength: 20 }), (lines) => {
      const source = lines.map(({ instruction, operands }) => `${instruction.name} ${operands}`).join('\n')
      const { bytes } = assemble(source, 0x40_0000n)
      let at = 0
      for (const { instruction } of lines) {
        const found = decode(bytes, at)
        expect(found).toBe(instruction)
        at += found ? lengthOf(found) : 0
      }
      expect(at).toBe(bytes.length)
    }),
  )
})

test('labels, constants, comments and numbers', () => {
  const { bytes, labels } = assemble(
    `
    start:                      ; a comment
      mov rax, -1
      store64 [rbx+FIELD], rax
    end: jmp start
      mov rcx, end`,
    0xffff_ffff_8100_0000n,
    { FIELD: 8n },
  )
  expect([...labels]).toEqual([
    ['start', 0xffff_ffff_8100_0000n],
    ['end', 0xffff_ffff_8100_000en],
  ])
  expect(Buffer.from(bytes).toString('hex')).toBe(
    ['1000ffffffffffffffff', '2b300800', 'e9edffffff', '10010e000081ffffffff'].join(''),
  )
})

test.each([
  ['frob rax', 'line 1 of the program: there is no instruction frob'],
  ['nop\nadd rax', "line 2 of the program: add does not take 'rax'"],
  ['nop\n\nadd rax, 0x80000000', 'line 3 of the program: 0x80000000 does not fit here'],
  ['jmp nowhere', 'line 1 of the program: what is nowhere?'],
  ['here: nop\nhere: nop', 'line 2 of the program: here is there twice'],
  ['load8 rax, [rbx+32768]', 'line 1 of the program: 32768 does not fit here'],
  ['load8 rax, [rbx+many]', 'line 1 of the program: what is many?'],
  ['shl rax, 64', 'line 1 of the program: 64 does not fit here'],
  ['out8 256', 'line 1 of the program: 256 does not fit here'],
  ['jmp 0xffffffff00000000', 'line 1 of the program: 0xffffffff00000000 is too far away'],
  ['mov cr5, rax', "line 1 of the program: mov does not take 'cr5, rax'"],
])('%s', (source, message) => {
  expect(() => assemble(source, 0n)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT', message }))
})
