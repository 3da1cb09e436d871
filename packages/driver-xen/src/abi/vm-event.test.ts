import { describe, expect, test } from 'vitest'
import { at, LAYOUTS } from './layouts.testing.ts'
import { abiOf } from './versions.ts'
import * as vmEvent from './vm-event.ts'

describe.each(LAYOUTS)('Xen 4.%i', (minor, layout) => {
  const abi = abiOf({ major: 4, minor, extra: '' })
  const constant = (name: string) => at(layout, 'constants', name)
  const event = (name: string) => at(layout, 'vm_event', name)

  test('what only some versions have', () => {
    expect(abi.hasFastStep).toBe(layout.constants?.VM_EVENT_FLAG_FAST_SINGLESTEP !== undefined)
    expect(abi.hasIo).toBe(layout.constants?.VM_EVENT_REASON_IO_INSTRUCTION !== undefined)
    expect(abi.deferralIsOption).toBe(layout.constants?.XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS !== undefined)
  })

  test('what a request tells, by reason', () => {
    const { SLOT, MEMORY_ACCESS, CONTROL_REGISTER, MSR, DESCRIPTOR, CPUID } = vmEvent
    expect(SLOT).toEqual({
      version: event('version'),
      flags: event('flags'),
      reason: event('reason'),
      vcpu: event('vcpu_id'),
      view: event('altp2m_idx'),
      particulars: event('u'),
      data: event('data'),
    })
    expect(MEMORY_ACCESS).toEqual({
      gfn: event('mem_access.gfn'),
      offset: event('mem_access.offset'),
      virtualAddress: event('mem_access.gla'),
      flags: event('mem_access.flags'),
    })
    expect(CONTROL_REGISTER).toEqual({
      index: event('write_ctrlreg.index'),
      next: event('write_ctrlreg.new_value'),
      old: event('write_ctrlreg.old_value'),
    })
    expect(MSR).toEqual({
      index: event('mov_to_msr.msr'),
      next: event('mov_to_msr.new_value'),
      old: event('mov_to_msr.old_value'),
    })
    expect(DESCRIPTOR).toEqual({ table: event('desc_access.descriptor'), write: event('desc_access.is_write') })
    expect(CPUID).toEqual({
      length: event('cpuid.insn_length'),
      leaf: event('cpuid.leaf'),
      subleaf: event('cpuid.subleaf'),
    })
    if (abi.hasIo) {
      expect(vmEvent.IO).toEqual({ bytes: event('io.bytes'), port: event('io.port'), isIn: event('io.in') })
      expect(vmEvent.REASON.io).toBe(constant('VM_EVENT_REASON_IO_INSTRUCTION'))
    }
    expect(vmEvent.READ_DATA).toEqual({ size: event('emul.read.size'), bytes: event('emul.read.data') })
    expect(vmEvent.INSTRUCTION_DATA.bytes).toBe(event('emul.insn.data'))
  })

  test('flags, reasons and numbers', () => {
    expect(vmEvent.FLAG).toMatchObject({
      vcpuPaused: constant('VM_EVENT_FLAG_VCPU_PAUSED'),
      emulate: constant('VM_EVENT_FLAG_EMULATE'),
      emulateNoWrite: constant('VM_EVENT_FLAG_EMULATE_NOWRITE'),
      toggleSingleStep: constant('VM_EVENT_FLAG_TOGGLE_SINGLESTEP'),
      setEmulatedReadData: constant('VM_EVENT_FLAG_SET_EMUL_READ_DATA'),
      deny: constant('VM_EVENT_FLAG_DENY'),
      view: constant('VM_EVENT_FLAG_ALTERNATE_P2M'),
      setRegisters: constant('VM_EVENT_FLAG_SET_REGISTERS'),
      setEmulatedInstruction: constant('VM_EVENT_FLAG_SET_EMUL_INSN_DATA'),
      getNextInterrupt: constant('VM_EVENT_FLAG_GET_NEXT_INTERRUPT'),
    })
    expect(vmEvent.REASON).toMatchObject({
      memoryAccess: constant('VM_EVENT_REASON_MEM_ACCESS'),
      controlRegister: constant('VM_EVENT_REASON_WRITE_CTRLREG'),
      msr: constant('VM_EVENT_REASON_MOV_TO_MSR'),
      breakpoint: constant('VM_EVENT_REASON_SOFTWARE_BREAKPOINT'),
      singleStep: constant('VM_EVENT_REASON_SINGLESTEP'),
      guestRequest: constant('VM_EVENT_REASON_GUEST_REQUEST'),
      debugException: constant('VM_EVENT_REASON_DEBUG_EXCEPTION'),
      cpuid: constant('VM_EVENT_REASON_CPUID'),
      privilegedCall: constant('VM_EVENT_REASON_PRIVILEGED_CALL'),
      interrupt: constant('VM_EVENT_REASON_INTERRUPT'),
      descriptor: constant('VM_EVENT_REASON_DESCRIPTOR_ACCESS'),
      emulationUnimplemented: constant('VM_EVENT_REASON_EMUL_UNIMPLEMENTED'),
    })
    for (const register of vmEvent.CONTROL_REGISTERS) {
      expect(vmEvent.CONTROL_REGISTERS[constant(`VM_EVENT_X86_${register.toUpperCase()}`)]).toBe(register)
    }
    const tables = ['IDTR', 'GDTR', 'LDTR', 'TR'].map((name) => vmEvent.TABLES[constant(`VM_EVENT_DESC_${name}`) - 1])
    expect(tables).toEqual(['idt', 'gdt', 'ldt', 'tr'])
  })

  test('registers of a request, each where the headers have it', () => {
    const length = at(layout, 'vm_event_regs_x86', 'size')
    expect(abi.registers.length).toBe(length)
    const members: Record<string, string> = {
      ...{ efer: 'msr_efer', star: 'msr_star', lstar: 'msr_lstar' },
      ...{ sysenterCs: 'sysenter_cs', sysenterEsp: 'sysenter_esp', sysenterEip: 'sysenter_eip' },
    }
    const isIn = (member: string) => layout.vm_event_regs_x86?.[member] !== undefined
    const where = (member: string) => event('data') + at(layout, 'vm_event_regs_x86', member)
    const names = [
      ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
      ...['rflags', 'rip', 'cr0', 'cr2', 'cr3', 'cr4', ...Object.keys(members)],
    ]
    const slot = new DataView(new ArrayBuffer(abi.slotLength))
    // Each 8 bytes of the slot say where they are.
    for (let offset = 0; offset + 8 <= slot.byteLength; offset += 8) slot.setBigUint64(offset, BigInt(offset), true)
    const registers = vmEvent.registersOf(slot, abi) as unknown as Record<string, unknown>
    for (const name of names) {
      const member = members[name] ?? name
      expect([name, registers[name]]).toEqual([name, isIn(member) ? BigInt(where(member)) : undefined])
    }
    // Left out on purpose, see registersOf.
    expect([registers.dr6, registers.dr7, registers.kernelGsBase]).toEqual([undefined, undefined, undefined])
    const settable = vmEvent.settableRegisters(abi)
    for (const [name, offset] of settable) expect([name, offset]).toEqual([name, where(name)])
    expect(settable.size).toBe(18)
  })

  test('segments and tables of a request', () => {
    const slot = new DataView(new ArrayBuffer(abi.slotLength))
    const found = () => vmEvent.registersOf(slot, abi)
    if (layout.vm_event_regs_x86?.cs_sel === undefined) {
      expect(found().cs).toBeUndefined()
      expect(found().gdt).toBeUndefined()
      return
    }
    const where = (member: string) => event('data') + at(layout, 'vm_event_regs_x86', member)
    for (const [index, name] of (['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const).entries()) {
      slot.setUint16(where(`${name}_sel`), 0x10 + index, true)
      if (name === 'fs' || name === 'gs') slot.setBigUint64(where(`${name}_base`), 0xffff_8880_0000_0000n, true)
      else slot.setUint32(where(`${name}_base`), 0x1000 * index, true)
      // limit 0xfffff, rights 0xa9b: in pages, 64-bit code.
      slot.setUint32(where(name), 0xa9bf_ffff, true)
      expect(found()[name]).toEqual({
        selector: 0x10 + index,
        base: index < 4 ? BigInt(0x1000 * index) : 0xffff_8880_0000_0000n,
        limit: 0xffff_ffff,
        attributes: 0xa09b,
      })
    }
    if (layout.vm_event_regs_x86?.gdtr_base === undefined) return expect(found().gdt).toBeUndefined()
    slot.setBigUint64(where('gdtr_base'), 0xffff_fe00_0000_1000n, true)
    slot.setUint16(where('gdtr_limit'), 0x7f, true)
    expect(found().gdt).toEqual({ base: 0xffff_fe00_0000_1000n, limit: 0x7f })
  })
})
