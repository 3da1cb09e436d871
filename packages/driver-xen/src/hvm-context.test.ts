import { describe, expect, test } from 'vitest'
import { at, LAYOUTS } from './abi/layouts.testing.ts'
import * as context from './hvm-context.ts'
import { changeGeneral, isGeneral, VCPU_CONTEXT } from './vcpu-context.ts'

const NONE = { lapic: undefined, lapicRegisters: undefined, mtrr: undefined, xsave: undefined }

describe.each(LAYOUTS)('a vCPU that Xen 4.%i has saved', (_, layout) => {
  const where = (member: string) => at(layout, 'hvm_hw_cpu', member)
  const members: Record<string, string> = {
    ...{ sysenterCs: 'sysenter_cs', sysenterEsp: 'sysenter_esp', sysenterEip: 'sysenter_eip', lstar: 'msr_lstar' },
    ...{ kernelGsBase: 'shadow_gs', star: 'msr_star', cstar: 'msr_cstar', fmask: 'msr_syscall_mask', efer: 'msr_efer' },
  }

  test('type codes and lengths of the records', () => {
    const code = (name: string) => at(layout, 'constants', name)
    expect(context.CPU).toEqual({ code: code('HVM_SAVE_CODE(CPU)'), length: where('size') })
    expect(context.LAPIC.code).toBe(code('HVM_SAVE_CODE(LAPIC)'))
    // Xen refuses a buffer that is too short for a record, and takes a longer one.
    expect(context.LAPIC.length).toBeGreaterThanOrEqual(at(layout, 'hvm_hw_lapic', 'size'))
    expect(context.XSAVE.length).toBeGreaterThanOrEqual(at(layout, 'hvm_hw_cpu_xsave', 'size'))
    expect(context.LAPIC_REGISTERS.code).toBe(code('HVM_SAVE_CODE(LAPIC_REGS)'))
    expect(context.LAPIC_REGISTERS.length).toBe(at(layout, 'hvm_hw_lapic_regs', 'size'))
    expect(context.MTRR).toEqual({ code: code('HVM_SAVE_CODE(MTRR)'), length: at(layout, 'hvm_hw_mtrr', 'size') })
    expect(context.XSAVE.code).toBe(code('CPU_XSAVE_CODE'))
  })

  test('every register that can be written is read back from where the headers have it', () => {
    for (const name of context.WRITABLE) {
      const cpu = context.roomFor(context.CPU.length)
      context.changeRegisters(cpu.view, { [name]: 0x0123_4567_89ab_cdefn })
      expect([name, cpu.view.getBigUint64(where(members[name] ?? name), true)]).toEqual([name, 0x0123_4567_89ab_cdefn])
      const read = context.parseRegisters(cpu, NONE) as unknown as Record<string, unknown>
      expect([name, read[name]]).toEqual([name, 0x0123_4567_89ab_cdefn])
    }
  })

  test('general registers are written to where struct vcpu_guest_context has them, and nothing else is', () => {
    expect(VCPU_CONTEXT).toBe(at(layout, 'vcpu_guest_context', 'size'))
    for (const name of context.WRITABLE) {
      if (!isGeneral({ [name]: 1n })) continue
      const vcpu = new DataView(new ArrayBuffer(VCPU_CONTEXT))
      changeGeneral(vcpu, { [name]: 0x0123_4567_89ab_cdefn })
      const offset = at(layout, 'vcpu_guest_context', `user.${name}`)
      expect([name, vcpu.getBigUint64(offset, true)]).toEqual([name, 0x0123_4567_89ab_cdefn])
      vcpu.setBigUint64(offset, 0n, true)
      expect(new Uint8Array(vcpu.buffer).every((byte) => byte === 0)).toBe(true)
    }
  })

  test('segments, tables, and what other records have', () => {
    const room = context.roomFor(context.CPU.length)
    const cpu = room.view
    const segments = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const
    for (const [index, name] of segments.entries()) {
      const member = name === 'ldt' ? 'ldtr' : name
      cpu.setUint32(where(`${member}_sel`), 8 * index, true)
      cpu.setUint32(where(`${member}_limit`), 0xffff + index, true)
      cpu.setBigUint64(where(`${member}_base`), 0xffff_8880_0000_0000n + BigInt(index), true)
      cpu.setUint32(where(`${member}_arbytes`), 0xa90 + index, true)
    }
    for (const [index, name] of ['gdtr', 'idtr'].entries()) {
      cpu.setBigUint64(where(`${name}_base`), 0x1000n * BigInt(index + 1), true)
      cpu.setUint32(where(`${name}_limit`), 0x7f + index, true)
    }
    cpu.setBigUint64(where('msr_tsc_aux'), 0x5678n, true)
    expect(context.tscAuxOf(room)).toBe(0x5678n)
    const record = context.roomFor
    const further = { lapic: record(24), lapicRegisters: record(1024), mtrr: record(240), xsave: record(600) }
    further.lapic.view.setBigUint64(at(layout, 'hvm_hw_lapic', 'apic_base_msr'), 0xfee0_0900n, true)
    further.mtrr.view.setBigUint64(at(layout, 'hvm_hw_mtrr', 'msr_pat_cr'), 0x0007_0406_0007_0406n, true)
    further.xsave.view.setBigUint64(at(layout, 'hvm_hw_cpu_xsave', 'xcr0'), 7n, true)
    further.lapicRegisters.view.setUint32(0x80, 0xd3, true)
    const registers = context.parseRegisters(room, further)
    for (const [index, name] of segments.entries()) {
      expect(registers[name]).toEqual({
        selector: 8 * index,
        base: 0xffff_8880_0000_0000n + BigInt(index),
        limit: 0xffff + index,
        attributes: 0xa090 + index,
      })
    }
    expect(registers).toMatchObject({
      gdt: { base: 0x1000n, limit: 0x7f },
      idt: { base: 0x2000n, limit: 0x80 },
      ...{ apicBase: 0xfee0_0900n, pat: 0x0007_0406_0007_0406n, xcr0: 7n, cr8: 0xdn },
    })
  })
})

test('what a guest lacks is undefined, not 0', () => {
  const registers = context.parseRegisters(context.roomFor(context.CPU.length), NONE)
  const { apicBase, pat, xcr0, cr8 } = registers
  expect({ apicBase, pat, xcr0, cr8 }).toEqual({ apicBase: undefined, pat: undefined, xcr0: undefined, cr8: undefined })
})
