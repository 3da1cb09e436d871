import fc from 'fast-check'
import { expect, test } from 'vitest'
import { movesTo, writesOfMsrs } from './instructions.ts'

const BASE = 0xffff_ffff_8100_0000n
const code = (...bytes: number[]) => [{ address: BASE, bytes: Uint8Array.from(bytes) }]

// As the GNU assembler encodes them.
test.each([
  ['mov cr3, rax', 'cr3', [0x0f, 0x22, 0xd8], [[0n, 0]]],
  ['mov cr3, rdi', 'cr3', [0x0f, 0x22, 0xdf], [[0n, 7]]],
  ['mov cr0, rcx', 'cr0', [0x0f, 0x22, 0xc1], [[0n, 1]]],
  ['mov cr4, rbx', 'cr4', [0x0f, 0x22, 0xe3], [[0n, 3]]],
] as const)('%s', (_, register, bytes, expected) => {
  const found = [...movesTo(register, code(...bytes))]
  expect(found.map(({ address, source }) => [address - BASE, source])).toEqual(expected)
})

test('behind a prefix the source may be r8 to r15; where the instruction begins is not known, so both places count', () => {
  // mov cr3, r12
  const found = [...movesTo('cr3', code(0x90, 0x41, 0x0f, 0x22, 0xdc))]
  expect(found).toEqual([
    { address: BASE + 2n, source: 4 },
    { address: BASE + 1n, source: 12 },
  ])
})

test.each([
  ['mov cr8, rax: REX.R', 'cr0', [0x44, 0x0f, 0x22, 0xc0], 1],
  ['mov rax, cr3', 'cr3', [0x0f, 0x20, 0xd8], 0],
  ['cut off', 'cr3', [0x0f, 0x22], 0],
] as const)('%s', (_, register, bytes, count) => {
  expect([...movesTo(register, code(...bytes))]).toHaveLength(count)
})

test('wrmsr', () => {
  expect([...writesOfMsrs(code(0x0f, 0x0f, 0x30, 0x0f, 0x32, 0x0f, 0x30))]).toEqual([
    { address: BASE + 1n },
    { address: BASE + 5n },
  ])
})

test('wherever one is planted among random bytes, it is found', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 3, maxLength: 64 }), fc.nat(60), fc.nat(7), (bytes, place, source) => {
      const at = place % (bytes.length - 2)
      bytes.set([0x0f, 0x22, 0xd8 | source], at)
      const found = [...movesTo('cr3', [{ address: BASE, bytes }])]
      expect(found).toContainEqual({ address: BASE + BigInt(at), source })
      for (const { address } of found) {
        const offset = Number(address - BASE)
        expect(offset).toBeGreaterThanOrEqual(0)
        expect(offset).toBeLessThan(bytes.length)
      }
    }),
  )
})
