import { type DescriptorTable, MicrovmiError, type Registers, type Segment } from '@microvmi/core/driver'
import { segment } from './segments.ts'

/**
 * The registers in the text of the human monitor's `info registers` for one vCPU (QEMU, target/i386/cpu-dump.c,
 * x86_cpu_dump_state). A vCPU outside of long mode is printed with 32-bit names (EAX). Throws `PROTOCOL` where one of
 * those that every vCPU has is missing.
 */
export function parseInfoRegisters(text: string): Registers {
  // Names are padded to three letters: "R8 =", "CS =", "CR0=", and several stand on a line.
  const words = new Map<string, bigint>()
  for (const [, name = '', value = ''] of text.matchAll(/\b([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{8,16})\b/g)) {
    if (!words.has(name)) words.set(name, BigInt(`0x${value}`))
  }
  const word = (...names: string[]): bigint => {
    for (const name of names) {
      const value = words.get(name)
      if (value !== undefined) return value
    }
    throw new MicrovmiError('PROTOCOL', `QEMU's 'info registers' has no ${names[0]}: is it a version newer than 11?`)
  }
  /** General registers from r8 on do not exist outside of long mode. */
  const high = (name: string): bigint => words.get(name) ?? 0n
  return {
    architecture: 'x86-64',
    rax: word('RAX', 'EAX'),
    rbx: word('RBX', 'EBX'),
    rcx: word('RCX', 'ECX'),
    rdx: word('RDX', 'EDX'),
    rsi: word('RSI', 'ESI'),
    rdi: word('RDI', 'EDI'),
    rbp: word('RBP', 'EBP'),
    rsp: word('RSP', 'ESP'),
    r8: high('R8'),
    r9: high('R9'),
    r10: high('R10'),
    r11: high('R11'),
    r12: high('R12'),
    r13: high('R13'),
    r14: high('R14'),
    r15: high('R15'),
    rip: word('RIP', 'EIP'),
    rflags: word('RFL', 'EFL'),
    cr0: word('CR0'),
    cr2: word('CR2'),
    cr3: word('CR3'),
    cr4: word('CR4'),
    dr0: word('DR0'),
    dr1: word('DR1'),
    dr2: word('DR2'),
    dr3: word('DR3'),
    dr6: word('DR6'),
    dr7: word('DR7'),
    efer: word('EFER'),
    es: segmentIn(text, 'ES'),
    cs: segmentIn(text, 'CS'),
    ss: segmentIn(text, 'SS'),
    ds: segmentIn(text, 'DS'),
    fs: segmentIn(text, 'FS'),
    gs: segmentIn(text, 'GS'),
    ldt: segmentIn(text, 'LDT'),
    tr: segmentIn(text, 'TR'),
    gdt: tableIn(text, 'GDT'),
    idt: tableIn(text, 'IDT'),
  }
}

/** `CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]` */
function segmentIn(text: string, name: string): Segment | undefined {
  const match = new RegExp(`^${name} *=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8}) ([0-9a-f]{8})`, 'm').exec(text)
  if (!match) return undefined
  const [, selector = '', base = '', limit = '', flags = ''] = match
  return segment(
    Number.parseInt(selector, 16),
    BigInt(`0x${base}`),
    Number.parseInt(limit, 16),
    Number.parseInt(flags, 16),
  )
}

/** `GDT=     fffffe0000001000 0000007f` */
function tableIn(text: string, name: string): DescriptorTable | undefined {
  const match = new RegExp(`^${name}= +([0-9a-f]{8,16}) ([0-9a-f]{8})`, 'm').exec(text)
  return match ? { base: BigInt(`0x${match[1]}`), limit: Number.parseInt(match[2] ?? '', 16) } : undefined
}
