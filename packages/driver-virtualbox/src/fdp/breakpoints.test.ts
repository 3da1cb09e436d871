import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { controlRegisterWritten, isWrmsr } from './breakpoints.ts'

describe('instructions', () => {
  test.each([
    ['mov cr3, rax', [0x0f, 0x22, 0xd8], 3],
    ['mov cr3, r8', [0x41, 0x0f, 0x22, 0xd8], 3],
    ['mov cr0, rdi', [0x90, 0x0f, 0x22, 0xc7], 0],
    ['mov cr4, rax behind a byte that looks like a prefix', [0x44, 0x0f, 0x22, 0xe0], 4],
    ['mov rax, cr3', [0x48, 0x0f, 0x20, 0xd8], undefined],
    ['less than an instruction', [0x22, 0xd8], undefined],
    ['nothing', [], undefined],
  ])('the control register that is written: %s', (_, bytes, register) => {
    expect(controlRegisterWritten(Uint8Array.from(bytes))).toBe(register)
  })

  test('WRMSR', () => {
    expect(isWrmsr(Uint8Array.of(0x0f, 0x30, 0x90))).toBe(true)
    expect(isWrmsr(Uint8Array.of(0x0f, 0x32))).toBe(false)
    expect(isWrmsr(Uint8Array.of(0x0f))).toBe(false)
  })

  test('any bytes name one of eight registers, or none', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 8 }), (bytes) => {
        const register = controlRegisterWritten(bytes)
        expect(register === undefined || (register >= 0 && register < 8)).toBe(true)
      }),
    )
  })
})
