import {
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
  type Segment,
} from '@microvmi/core/driver'
import { complaintIn } from './console-text.ts'
import type { CommandLine } from './debug-console.ts'
import type { Stopping, VirtualBoxMachine } from './machine.ts'
import { parseRegisters } from './vboxmanage-output.ts'

const REQUIRED = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
  ...(['rip', 'cr0', 'cr2', 'cr3', 'cr4'] as const),
]

/** What VirtualBox calls the further ones. */
const FURTHER = {
  ...{ cr8: 'cr8', dr0: 'dr0', dr1: 'dr1', dr2: 'dr2', dr3: 'dr3', dr6: 'dr6', dr7: 'dr7', tsc: 'tsc' },
  ...{ efer: 'efer', star: 'star', lstar: 'lstar', cstar: 'cstar', fmask: 'sf_mask', kernelGsBase: 'krnl_gs_base' },
  ...{ sysenterCs: 'sysenter_cs', sysenterEsp: 'sysenter_esp', sysenterEip: 'sysenter_eip' },
  ...{ pat: 'pat', apicBase: 'apic_base' },
} as const

const SEGMENTS = { cs: 'cs', ds: 'ds', es: 'es', fs: 'fs', gs: 'gs', ss: 'ss', ldt: 'ldtr', tr: 'tr' } as const

/** MSRs that are among the registers (Intel SDM volume 4, table 2-2). */
const MSRS: Readonly<Record<number, string>> = {
  27: 'apic_base',
  372: 'sysenter_cs',
  373: 'sysenter_esp',
  374: 'sysenter_eip',
  631: 'pat',
  3221225600: 'efer',
  3221225601: 'star',
  3221225602: 'lstar',
  3221225603: 'cstar',
  3221225604: 'sf_mask',
  3221225728: 'fs_base',
  3221225729: 'gs_base',
  3221225730: 'krnl_gs_base',
  3221225731: 'tsc_aux',
}

/** Registers that the debug console takes, and that were seen to read back (VirtualBox 7.2). */
const WRITABLE = [...REQUIRED] as const

/** Registers as `VBoxManage debugvm … getregisters` gives them, all of a vCPU's at one moment. */
export class VirtualBoxRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName> = new Set(WRITABLE)
  readonly #machine: VirtualBoxMachine
  readonly #stopping: Stopping
  readonly #console: CommandLine | undefined

  constructor(machine: VirtualBoxMachine, stopping: Stopping, console: CommandLine | undefined) {
    this.#machine = machine
    this.#stopping = stopping
    this.#console = console
  }

  read(vcpu: number): Registers {
    return registersOf(this.#values(vcpu))
  }

  write(vcpu: number, changes: RegisterChanges): void {
    const console = this.#console
    const writes = Object.entries(changes) as [string, bigint][]
    if (!console || writes.length === 0) return
    const set = () => {
      const commands = writes.map(([name, value]) => `r ${name} = 0x${value.toString(16)}`)
      const complaint = complaintIn(console.ask([`cpu ${vcpu.toString(16)}`, ...commands]))
      if (complaint !== undefined) throw new MicrovmiError('HYPERVISOR', `the debug console: ${complaint}`)
      const now = this.#values(vcpu)
      const wrong = writes.find(([name, value]) => now.get(name) !== value)
      if (!wrong) return
      const is = now.get(wrong[0])?.toString(16)
      throw new MicrovmiError(
        'HYPERVISOR',
        `register ${wrong[0]} was set to 0x${wrong[1].toString(16)} and is 0x${is}: VirtualBox keeps some bits`,
      )
    }
    this.#stopping.whileStopped(set)
  }

  /** An MSR by VirtualBox's name for it. */
  value(vcpu: number, name: string): bigint | undefined {
    return this.#values(vcpu).get(name)
  }

  #values(vcpu: number): Map<string, bigint> {
    return parseRegisters(this.#machine.debug('getregisters', `--cpu=${vcpu}`, 'all'), vcpu)
  }
}

/** `readMsr` for those that are among the registers. */
export class VirtualBoxMsrs implements MsrBackend {
  readonly #registers: VirtualBoxRegisters

  constructor(registers: VirtualBoxRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    const name = MSRS[index]
    const value = name === undefined ? undefined : this.#registers.value(vcpu, name)
    if (value !== undefined) return value
    const known = Object.keys(MSRS).map((one) => `0x${Number(one).toString(16)}`)
    throw new MicrovmiError(
      'UNSUPPORTED',
      `VirtualBox does not tell MSR 0x${index.toString(16)}; it tells ${known.join(', ')}`,
    )
  }
}

/** Throws `PROTOCOL` where one is missing that every VirtualBox gives. */
export function registersOf(values: ReadonlyMap<string, bigint>): Registers {
  const required = (name: string): bigint => {
    const value = values.get(name)
    if (value !== undefined) return value
    throw new MicrovmiError('PROTOCOL', `VBoxManage gives no register ${name}: is this another version?`)
  }
  const segment = (name: string): Segment | undefined => {
    const selector = values.get(name)
    if (selector === undefined) return undefined
    const [base, limit, attributes] = ['base', 'lim', 'attr'].map((part) => values.get(`${name}_${part}`))
    return {
      selector: Number(selector & 0xffffn),
      base,
      limit: limit === undefined ? undefined : Number(limit & 0xffff_ffffn),
      // Bits 8 to 11 are limit bits of the descriptor, bit 16 is VirtualBox's own (X86DESCATTR_UNUSABLE).
      attributes: attributes === undefined ? undefined : Number(attributes & 0xf0ffn),
    }
  }
  const table = (name: string) => {
    const [base, limit] = [values.get(`${name}_base`), values.get(`${name}_lim`)]
    return base === undefined || limit === undefined ? undefined : { base, limit: Number(limit & 0xffffn) }
  }
  const registers: Record<string, unknown> = { architecture: 'x86-64' }
  for (const name of REQUIRED) registers[name] = required(name)
  // VirtualBox 7.2 leaves what happens to be there in the upper half, which no processor has.
  registers.rflags = required('rflags') & 0xffff_ffffn
  for (const [name, theirs] of Object.entries(FURTHER)) registers[name] = values.get(theirs)
  for (const [name, theirs] of Object.entries(SEGMENTS)) registers[name] = segment(theirs)
  registers.gdt = table('gdtr')
  registers.idt = table('idtr')
  return registers as unknown as Registers
}
