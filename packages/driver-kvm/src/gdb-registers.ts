import { MicrovmiError, type RegisterName, type Registers, type Segment } from '@microvmi/core/driver'
import type { GdbRegister } from './target-description.ts'

/** Our names of 64-bit registers, and the stub's (gdb-xml/i386-64bit.xml). */
const WORDS = {
  ...{ rax: 'rax', rbx: 'rbx', rcx: 'rcx', rdx: 'rdx', rsi: 'rsi', rdi: 'rdi', rbp: 'rbp', rsp: 'rsp' },
  ...{ r8: 'r8', r9: 'r9', r10: 'r10', r11: 'r11', r12: 'r12', r13: 'r13', r14: 'r14', r15: 'r15' },
  ...{
    rip: 'rip',
    cr0: 'cr0',
    cr2: 'cr2',
    cr3: 'cr3',
    cr4: 'cr4',
    cr8: 'cr8',
    efer: 'efer',
    kernelGsBase: 'k_gs_base',
  },
} as const satisfies { readonly [Name in RegisterName]?: string }

type Word = keyof typeof WORDS
type SegmentName = 'cs' | 'ss' | 'ds' | 'es' | 'fs' | 'gs'

/** Registers that the stub takes and gives back, and what it calls them. Each was seen to read back (QEMU 7.2). */
export const WRITABLE = { ...WORDS, rflags: 'eflags' } as const satisfies { readonly [Name in RegisterName]?: string }

/** The general registers in the order of their encoding in instructions (Intel SDM volume 2A, table 2-2). */
export const ENCODED = [
  ...(['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
]

/** Where each register is among those that the stub packs into one answer. */
export class GdbLayout {
  readonly length: number
  readonly #words: { readonly [Name in Word]: number }
  readonly #flags: number
  readonly #segments: { readonly [Name in SegmentName]: number }
  readonly #fsBase: number
  readonly #gsBase: number

  constructor(described: ReadonlyMap<string, GdbRegister>) {
    const offsets = new Map<string, number>()
    let length = 0
    for (const { name, bits } of [...described.values()].sort((a, b) => a.number - b.number)) {
      offsets.set(name, length)
      length += bits / 8
    }
    const offset = (name: string, bits: number): number => {
      const found = offsets.get(name)
      if (found !== undefined && described.get(name)?.bits === bits) return found
      throw new MicrovmiError('PROTOCOL', `the gdbstub describes no register ${name} of ${bits} bits`)
    }
    this.length = length
    const word = (name: Word) => offset(WORDS[name], 64)
    this.#words = {
      ...{ rax: word('rax'), rbx: word('rbx'), rcx: word('rcx'), rdx: word('rdx') },
      ...{ rsi: word('rsi'), rdi: word('rdi'), rbp: word('rbp'), rsp: word('rsp') },
      ...{ r8: word('r8'), r9: word('r9'), r10: word('r10'), r11: word('r11') },
      ...{ r12: word('r12'), r13: word('r13'), r14: word('r14'), r15: word('r15'), rip: word('rip') },
      ...{ cr0: word('cr0'), cr2: word('cr2'), cr3: word('cr3'), cr4: word('cr4'), cr8: word('cr8') },
      ...{ efer: word('efer'), kernelGsBase: word('kernelGsBase') },
    }
    this.#flags = offset('eflags', 32)
    const segment = (name: SegmentName) => offset(name, 32)
    this.#segments = {
      ...{ cs: segment('cs'), ss: segment('ss'), ds: segment('ds') },
      ...{ es: segment('es'), fs: segment('fs'), gs: segment('gs') },
    }
    this.#fsBase = offset('fs_base', 64)
    this.#gsBase = offset('gs_base', 64)
  }

  /** One of a vCPU's registers in the stub's answer to `g`. */
  word(bytes: Buffer, name: Word): bigint {
    return bytes.readBigUInt64LE(this.#words[name])
  }

  fsBase(bytes: Buffer): bigint {
    return bytes.readBigUInt64LE(this.#fsBase)
  }

  gsBase(bytes: Buffer): bigint {
    return bytes.readBigUInt64LE(this.#gsBase)
  }

  /** All that the stub tells. */
  registers(bytes: Buffer): Registers {
    const word = (name: Word) => this.word(bytes, name)
    const segment = (name: SegmentName, base?: bigint): Segment => ({
      selector: bytes.readUInt32LE(this.#segments[name]) & 0xffff,
      base,
      limit: undefined,
      attributes: undefined,
    })
    return {
      architecture: 'x86-64',
      rax: word('rax'),
      rbx: word('rbx'),
      rcx: word('rcx'),
      rdx: word('rdx'),
      rsi: word('rsi'),
      rdi: word('rdi'),
      rbp: word('rbp'),
      rsp: word('rsp'),
      r8: word('r8'),
      r9: word('r9'),
      r10: word('r10'),
      r11: word('r11'),
      r12: word('r12'),
      r13: word('r13'),
      r14: word('r14'),
      r15: word('r15'),
      rip: word('rip'),
      rflags: BigInt(bytes.readUInt32LE(this.#flags)),
      cr0: word('cr0'),
      cr2: word('cr2'),
      cr3: word('cr3'),
      cr4: word('cr4'),
      cr8: word('cr8'),
      cs: segment('cs'),
      ss: segment('ss'),
      ds: segment('ds'),
      es: segment('es'),
      fs: segment('fs', this.fsBase(bytes)),
      gs: segment('gs', this.gsBase(bytes)),
      efer: word('efer'),
      kernelGsBase: word('kernelGsBase'),
    }
  }
}
