import { MicrovmiError, type Registers, type Segment } from '@microvmi/core/driver'
import { segment } from './segments.ts'

/**
 * The device state that `xen-save-devices-state` writes is a migration stream (QEMU, docs/devel/migration.rst): per
 * section a header, the device's fields in a fixed order, and a footer; all big endian.
 *
 *     "QEVM", u32 version 3
 *     0x04, u32 section, u8 length and name, u32 instance, u32 version, fields…, 0x7e, u32 section
 *     0x00
 */
const MAGIC = 0x5145_564d
const STREAM_VERSION = 3
const SECTION_FULL = 0x04
const SECTION_FOOTER = 0x7e
const END = 0x00

/** The fields of one device in the stream. */
export interface Section {
  readonly name: string
  readonly instance: number
  readonly version: number
  readonly fields: DataView
}

/**
 * The sections of a stream. A section does not tell its length: it ends at its footer that is followed by the next
 * section's header. Throws `PROTOCOL` for what is no such stream.
 */
export function parseDeviceState(bytes: Uint8Array): Section[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < 9 || view.getUint32(0) !== MAGIC || view.getUint32(4) !== STREAM_VERSION) {
    throw new MicrovmiError('PROTOCOL', 'the device state that QEMU wrote is no migration stream of version 3')
  }
  const sections: Section[] = []
  let header = headerAt(bytes, view, 8, -1)
  while (header) {
    const { id, name, instance, version, start } = header
    const end = footerAfter(bytes, view, start, id)
    sections.push({
      name,
      instance,
      version,
      fields: new DataView(bytes.buffer, bytes.byteOffset + start, end - start),
    })
    header = headerAt(bytes, view, end + 5, id)
  }
  return sections
}

interface Header {
  readonly id: number
  readonly name: string
  readonly instance: number
  readonly version: number
  readonly start: number
}

function headerAt(bytes: Uint8Array, view: DataView, at: number, after: number): Header | undefined {
  if (at + 6 > bytes.length || bytes[at] !== SECTION_FULL) return undefined
  const id = view.getUint32(at + 1)
  const length = bytes[at + 5] ?? 0
  const start = at + 6 + length + 8
  if (id <= after || length === 0 || start > bytes.length) return undefined
  const name = String.fromCharCode(...bytes.subarray(at + 6, at + 6 + length))
  if (!/^[\x20-\x7e]+$/.test(name)) return undefined
  return { id, name, instance: view.getUint32(start - 8), version: view.getUint32(start - 4), start }
}

function footerAfter(bytes: Uint8Array, view: DataView, start: number, id: number): number {
  for (let at = bytes.indexOf(SECTION_FOOTER, start); at >= 0; at = bytes.indexOf(SECTION_FOOTER, at + 1)) {
    if (at + 5 >= bytes.length || view.getUint32(at + 1) !== id) continue
    const isLast = bytes[at + 5] === END && at + 6 === bytes.length
    if (isLast || headerAt(bytes, view, at + 5, id)) return at
  }
  throw new MicrovmiError('PROTOCOL', `section ${id} of QEMU's device state does not end`)
}

/**
 * Version 12 of the section "cpu" (QEMU, target/i386/machine.c, vmstate_x86_cpu): fields in the order of that list,
 * the same for every QEMU that writes this version, or machines could not migrate between them. The offsets were
 * checked against `info registers` and the gdbstub of QEMU 7.2.
 */
const CPU_VERSION = 12
const CPU_LENGTH = 1817
const SEGMENT_LENGTH = 20
const OFFSET = {
  general: 0,
  eip: 128,
  eflags: 136,
  segments: 236,
  ldt: 356,
  tr: 376,
  gdt: 396,
  idt: 416,
  sysenterCs: 436,
  sysenterEsp: 440,
  sysenterEip: 448,
  cr0: 456,
  cr2: 464,
  cr3: 472,
  cr4: 480,
  dr0: 488,
  efer: 816,
  star: 824,
  lstar: 832,
  cstar: 840,
  fmask: 848,
  kernelGsBase: 856,
  pat: 868,
  xcr0: 1545,
} as const

/** The registers of each vCPU in a stream, by the vCPU's number. `undefined` where the layout is one we do not know. */
export function registersIn(sections: readonly Section[]): Map<number, Registers> | undefined {
  const cpus = sections.filter(({ name }) => name === 'cpu')
  if (cpus.length === 0) return undefined
  const registers = new Map<number, Registers>()
  for (const { instance, version, fields } of cpus) {
    if (version !== CPU_VERSION || fields.byteLength < CPU_LENGTH) return undefined
    const apic = sections.find((section) => section.name === 'apic' && section.instance === instance)
    registers.set(instance, registersOf(fields, apic?.fields))
  }
  return registers
}

function registersOf(cpu: DataView, apic: DataView | undefined): Registers {
  const word = (offset: number): bigint => cpu.getBigUint64(offset)
  const general = (index: number): bigint => word(OFFSET.general + index * 8)
  /** In the order of the encoding: es, cs, ss, ds, fs, gs. */
  const segmentOf = (index: number): Segment => segmentAt(cpu, OFFSET.segments + index * SEGMENT_LENGTH)
  const debug = (index: number): bigint => word(OFFSET.dr0 + index * 8)
  const xcr0 = word(OFFSET.xcr0)
  return {
    architecture: 'x86-64',
    // In the order of the encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi.
    rax: general(0),
    rcx: general(1),
    rdx: general(2),
    rbx: general(3),
    rsp: general(4),
    rbp: general(5),
    rsi: general(6),
    rdi: general(7),
    r8: general(8),
    r9: general(9),
    r10: general(10),
    r11: general(11),
    r12: general(12),
    r13: general(13),
    r14: general(14),
    r15: general(15),
    rip: word(OFFSET.eip),
    rflags: word(OFFSET.eflags),
    cr0: word(OFFSET.cr0),
    cr2: word(OFFSET.cr2),
    cr3: word(OFFSET.cr3),
    cr4: word(OFFSET.cr4),
    // Bit 0 (x87) is always set in XCR0 (Intel SDM volume 1, section 13.3): else the vCPU has no XSAVE.
    xcr0: (xcr0 & 1n) === 1n ? xcr0 : undefined,
    dr0: debug(0),
    dr1: debug(1),
    dr2: debug(2),
    dr3: debug(3),
    dr6: debug(6),
    dr7: debug(7),
    es: segmentOf(0),
    cs: segmentOf(1),
    ss: segmentOf(2),
    ds: segmentOf(3),
    fs: segmentOf(4),
    gs: segmentOf(5),
    ldt: segmentAt(cpu, OFFSET.ldt),
    tr: segmentAt(cpu, OFFSET.tr),
    gdt: tableAt(cpu, OFFSET.gdt),
    idt: tableAt(cpu, OFFSET.idt),
    efer: word(OFFSET.efer),
    star: word(OFFSET.star),
    lstar: word(OFFSET.lstar),
    cstar: word(OFFSET.cstar),
    fmask: word(OFFSET.fmask),
    sysenterCs: BigInt(cpu.getUint32(OFFSET.sysenterCs)),
    sysenterEsp: word(OFFSET.sysenterEsp),
    sysenterEip: word(OFFSET.sysenterEip),
    kernelGsBase: word(OFFSET.kernelGsBase),
    pat: word(OFFSET.pat),
    ...(apic ? apicRegisters(apic) : {}),
  }
}

/** The section "apic" begins with its base (u32), two ids (u8) and the task priority (u8), whose upper half is CR8. */
function apicRegisters(apic: DataView): Pick<Registers, 'apicBase' | 'cr8'> {
  if (apic.byteLength < 7) return {}
  return { apicBase: BigInt(apic.getUint32(0)), cr8: BigInt(apic.getUint8(6) >>> 4) }
}

/** SegmentCache: selector (u32), base (u64), limit (u32), flags (u32). */
function segmentAt(cpu: DataView, offset: number): Segment {
  return segment(
    cpu.getUint32(offset) & 0xffff,
    cpu.getBigUint64(offset + 4),
    cpu.getUint32(offset + 12),
    cpu.getUint32(offset + 16),
  )
}

function tableAt(cpu: DataView, offset: number): { base: bigint; limit: number } {
  return { base: cpu.getBigUint64(offset + 4), limit: cpu.getUint32(offset + 12) }
}
