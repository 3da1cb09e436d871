import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseInfoRegisters } from './info-registers.ts'

/** What QEMU 7.2 prints for a vCPU in long mode (the beginning). */
const LONG = `
CPU#0
RAX=0000000010484ca8 RBX=0000000000000002 RCX=0000000000000b18 RDX=ffffffffffffffff
RSI=ffa00000003dbf58 RDI=0000000000000000 RBP=ffa00000003dbcb0 RSP=ffa00000003dbc18
R8 =0000000000000008 R9 =0000000000000009 R10=0000000000000000 R11=0000000000000000
R12=ff11000005628000 R13=000000000047b5f3 R14=ffa00000003dbf58 R15=0000000000000015
RIP=ffffffff819c380c RFL=00040202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=00007ffceb8f2b78 CR3=000000000549e000 CR4=00751eb0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d01
`.replaceAll('\n', '\r\n')

/** The same for one in real mode. */
const REAL = `EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000663
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =f000 ffff0000 0000ffff 00009b00
GDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
`

test('a vCPU in long mode', () => {
  expect(parseInfoRegisters(LONG)).toMatchObject({
    rax: 0x10484ca8n,
    rdx: 0xffff_ffff_ffff_ffffn,
    r8: 8n,
    r9: 9n,
    r15: 0x15n,
    rip: 0xffff_ffff_819c_380cn,
    rflags: 0x40202n,
    cr3: 0x549e000n,
    dr6: 0xffff_0ff0n,
    efer: 0xd01n,
    cs: { selector: 0x10, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b },
    ldt: { attributes: 0x82 },
    gdt: { base: 0xffff_fe00_0000_1000n, limit: 0x7f },
  })
})

test('a vCPU in real mode; what is not printed is not there', () => {
  const registers = parseInfoRegisters(REAL)
  expect(registers).toMatchObject({
    rdx: 0x663n,
    rip: 0xfff0n,
    rflags: 2n,
    r8: 0n,
    cs: { selector: 0xf000, base: 0xffff_0000n },
  })
  expect(registers.tr).toBeUndefined()
  expect(registers.star).toBeUndefined()
})

test('text that lacks what every vCPU has is refused, whatever it is', () => {
  expect(() => parseInfoRegisters(LONG.replace('CR3=', 'CRX='))).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(() => parseInfoRegisters(text)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    }),
  )
})
