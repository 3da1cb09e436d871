import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { abiOf, KNOWN_MINORS } from './versions.ts'
import { CONTROL_REGISTER, CPUID, DESCRIPTOR, FLAG, MEMORY_ACCESS, MSR, REASON, SLOT } from './vm-event.ts'

type Layout = Readonly<Record<string, Readonly<Record<string, number>>>>

/** What make-layouts.sh printed of the headers of a version. */
const layoutOf = (minor: number): Layout =>
  JSON.parse(readFileSync(new URL(`../../layouts/4.${minor}.json`, import.meta.url), 'utf8'))

test.each(KNOWN_MINORS)('Xen 4.%i: offsets and constants are those of its headers', (minor) => {
  const { vm_event: slot = {}, vm_event_regs_x86: registers = {}, constants = {}, ...structs } = layoutOf(minor)
  const abi = abiOf({ major: 4, minor, extra: '' })
  expect(abi.vmEvent).toBe(constants.VM_EVENT_INTERFACE_VERSION)
  expect(abi.domctl).toBe(constants.XEN_DOMCTL_INTERFACE_VERSION)
  expect(abi.slotLength).toBe(slot.size)
  expect(abi.domainInfo).toEqual({
    length: structs.getdomaininfo?.size,
    archConfig: structs.getdomaininfo?.arch_config,
  })
  expect(SLOT).toEqual({
    version: slot.version,
    flags: slot.flags,
    reason: slot.reason,
    vcpu: slot.vcpu_id,
    view: slot.altp2m_idx,
    particulars: slot.u,
    data: slot.data,
  })
  expect(abi.debug).toEqual({
    length: slot['debug.insn_length'],
    type: slot['debug.type'],
    pending: slot['debug.pending_dbg'],
  })
  const at = abi.registers
  expect([at.length, at.dr7, at.rip, at.cr0, at.cr3, at.cr4]).toEqual([
    registers.size,
    registers.dr7,
    registers.rip,
    registers.cr0,
    registers.cr3,
    registers.cr4,
  ])
  expect([at.efer, at.star, at.lstar, at.fsBase, at.gsBase]).toEqual([
    registers.msr_efer,
    registers.msr_star,
    registers.msr_lstar,
    registers.fs_base,
    registers.gs_base,
  ])
  expect([at.bases, at.segments, at.selectors, at.shadowGs]).toEqual([
    registers.cs_base,
    registers.cs,
    registers.cs_sel,
    registers.shadow_gs,
  ])
  expect(at.gdt).toEqual(
    registers.gdtr_base === undefined ? undefined : { base: registers.gdtr_base, limit: registers.gdtr_limit },
  )
  expect(MEMORY_ACCESS.gfn).toBe(slot['mem_access.gfn'])
  expect(CONTROL_REGISTER).toEqual({
    index: slot['write_ctrlreg.index'],
    next: slot['write_ctrlreg.new_value'],
    old: slot['write_ctrlreg.old_value'],
  })
  expect(MSR.index).toBe(slot['mov_to_msr.msr'])
  expect(DESCRIPTOR).toEqual({ table: slot['desc_access.descriptor'], write: slot['desc_access.is_write'] })
  expect(CPUID.leaf).toBe(slot['cpuid.leaf'])
  expect(FLAG.vcpuPaused).toBe(constants.VM_EVENT_FLAG_VCPU_PAUSED)
  expect(FLAG.setRegisters).toBe(constants.VM_EVENT_FLAG_SET_REGISTERS)
  expect(FLAG.setEmulatedInstruction).toBe(constants.VM_EVENT_FLAG_SET_EMUL_INSN_DATA)
  expect(REASON.breakpoint).toBe(constants.VM_EVENT_REASON_SOFTWARE_BREAKPOINT)
  expect(REASON.descriptor).toBe(constants.VM_EVENT_REASON_DESCRIPTOR_ACCESS)
})

test('other versions are refused, not guessed', () => {
  for (const [major, minor] of [
    [4, 10],
    [4, 21],
    [3, 17],
    [5, 0],
  ] as const) {
    expect(() => abiOf({ major, minor, extra: '' })).toThrow(
      expect.objectContaining({ code: 'DRIVER_UNAVAILABLE', message: expect.stringContaining('4.11 to 4.20') }),
    )
  }
})
