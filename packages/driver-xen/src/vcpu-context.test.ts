import type { Registers } from '@microvmi/core/driver'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { at, LAYOUTS } from './abi/layouts.testing.ts'
import { changeGeneral, GENERAL, parsePvRegisters, VCPU_CONTEXT } from './vcpu-context.ts'

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
/** VGCF_in_kernel (xen/arch-x86/xen.h). */
const IN_KERNEL = 4

describe.each(LAYOUTS)("a PV guest's vCPU as Xen 4.%i tells it", (_, layout) => {
  const where = (member: string) => at(layout, 'vcpu_guest_context', member)
  const wordAt = (registers: readonly string[], start: number) =>
    registers.map((name) => [name, start + 8 * Number(name.at(-1))] as const)
  const words: readonly (readonly [name: string, offset: number])[] = [
    ...[...GENERAL].map((name) => [name, where(`user.${name}`)] as const),
    ...wordAt(['cr0', 'cr2', 'cr3', 'cr4'], where('ctrlreg')),
    ...wordAt(['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'], where('debugreg')),
  ]
  const context = () => new DataView(new ArrayBuffer(VCPU_CONTEXT))

  test('every register from where the headers have it, whatever it holds', () => {
    expect(VCPU_CONTEXT).toBe(where('size'))
    const values = fc.array(word, { minLength: words.length, maxLength: words.length })
    fc.assert(
      fc.property(values, (held) => {
        const vcpu = context()
        for (const [index, [, offset]] of words.entries()) vcpu.setBigUint64(offset, held[index] ?? 0n, true)
        const read = parsePvRegisters(vcpu) as unknown as Record<string, unknown>
        // Bit 1 of rflags is always set, whatever Xen has saved.
        const expected = words.map(([name], index) => (name === 'rflags' ? (held[index] ?? 0n) | 2n : held[index]))
        expect(words.map(([name]) => read[name])).toEqual(expected)
      }),
      { numRuns: 20 },
    )
  })

  test('what is written is read back, and nothing else changes', () => {
    const names = [...GENERAL]
    fc.assert(
      fc.property(
        fc.subarray(names),
        word,
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        (changed, value, noise) => {
          const vcpu = context()
          for (let offset = 0; offset + 64 <= VCPU_CONTEXT; offset += 64) new Uint8Array(vcpu.buffer).set(noise, offset)
          const before = parsePvRegisters(vcpu)
          const changes = Object.fromEntries(changed.map((name) => [name, value]))
          changeGeneral(vcpu, changes)
          const after = { ...before, ...changes }
          expect(parsePvRegisters(vcpu)).toEqual({ ...after, rflags: after.rflags | 2n })
        },
      ),
      { numRuns: 20 },
    )
  })

  test('selectors, and the bases of FS and GS by the mode that the vCPU is in', () => {
    const vcpu = context()
    const names = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const
    // What is behind a selector is not of it: saved_upcall_mask.
    for (const [index, name] of names.entries()) vcpu.setUint32(where(`user.${name}`), 0xff_0000 + index, true)
    const [fs, kernel, user] = [0x7f00_0000_1000n, 0xffff_8880_0000_0000n, 0x7f00_0000_2000n]
    vcpu.setBigUint64(where('fs_base'), fs, true)
    vcpu.setBigUint64(where('gs_base_kernel'), kernel, true)
    vcpu.setBigUint64(where('gs_base_user'), user, true)
    const basesOf = ({ fs, gs, kernelGsBase }: Registers) => [fs?.base, gs?.base, kernelGsBase]
    expect(basesOf(parsePvRegisters(vcpu))).toEqual([fs, user, kernel])
    vcpu.setUint32(where('flags'), IN_KERNEL, true)
    const read = parsePvRegisters(vcpu)
    expect(basesOf(read)).toEqual([fs, kernel, user])
    expect(names.map((name) => read[name]?.selector)).toEqual([0, 1, 2, 3, 4, 5])
  })
})

test('what Xen does not tell of a PV guest is undefined, not 0', () => {
  const { efer, cs, gdt, idt, tr, lstar, xcr0 } = parsePvRegisters(new DataView(new ArrayBuffer(VCPU_CONTEXT)))
  expect({ efer, gdt, idt, tr, lstar, xcr0 }).toEqual({})
  expect(cs).toEqual({ selector: 0, base: undefined, limit: undefined, attributes: undefined })
})
