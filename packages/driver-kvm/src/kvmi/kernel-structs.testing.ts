import type { Registers, Segment } from '@microvmi/core'

/** struct kvm_regs: in this order. */
const GENERAL = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const),
] as const

/** struct kvm_regs and struct kvm_sregs (asm/kvm.h). */
export function encodeRegs(registers: Registers): Buffer {
  const bytes = Buffer.alloc(144 + 312)
  for (const [index, name] of GENERAL.entries()) bytes.writeBigUInt64LE(registers[name], 8 * index)
  const segments = [registers.cs, registers.ds, registers.es, registers.fs, registers.gs, registers.ss]
  for (const [index, one] of [...segments, registers.tr, registers.ldt].entries()) {
    writeSegment(bytes.subarray(144 + 24 * index), one)
  }
  for (const [index, table] of [registers.gdt, registers.idt].entries()) {
    bytes.writeBigUInt64LE(table?.base ?? 0n, 144 + 192 + 16 * index)
    bytes.writeUInt16LE(table?.limit ?? 0, 144 + 200 + 16 * index)
  }
  const { cr0, cr2, cr3, cr4, cr8 = 0n, efer = 0n, apicBase = 0n } = registers
  for (const [index, value] of [cr0, cr2, cr3, cr4, cr8, efer, apicBase].entries()) {
    bytes.writeBigUInt64LE(value, 144 + 224 + 8 * index)
  }
  return bytes
}

function writeSegment(bytes: Buffer, segment: Segment | undefined): void {
  const { base = 0n, limit = 0, selector = 0, attributes = 0 } = segment ?? {}
  bytes.writeBigUInt64LE(base, 0)
  bytes.writeUInt32LE(limit, 8)
  bytes.writeUInt16LE(selector, 12)
  const bit = (at: number) => (attributes >> at) & 1
  // type, present, dpl, db, s, l, g, avl
  const parts = [attributes & 15, bit(7), (attributes >> 5) & 3, bit(14), bit(4), bit(13), bit(15), bit(12)]
  for (const [index, part] of parts.entries()) bytes[14 + index] = part
}

/** What a struct kvm_regs changes of these registers. */
export function changesIn(bytes: Buffer, now: Registers): Record<string, bigint> {
  const changes: Record<string, bigint> = {}
  for (const [index, name] of GENERAL.entries()) {
    const value = bytes.readBigUInt64LE(8 * index)
    if (value !== now[name]) changes[name] = value
  }
  return changes
}

/** The nine MSRs of an event: sysenter_cs, _esp, _eip, efer, star, lstar, cstar, pat, shadow_gs. */
export function encodeEventMsrs(registers: Registers): Buffer {
  const { sysenterCs, sysenterEsp, sysenterEip, efer, star, lstar, cstar, pat, kernelGsBase } = registers
  const bytes = Buffer.alloc(72)
  const values = [sysenterCs, sysenterEsp, sysenterEip, efer, star, lstar, cstar, pat, kernelGsBase]
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(value ?? 0n, 8 * index)
  return bytes
}
