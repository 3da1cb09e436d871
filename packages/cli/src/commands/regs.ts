import type { DescriptorTable, Registers, Segment } from '@microvmi/core'
import type { Io } from '../io.ts'
import { hex, printJson } from '../json.ts'
import { type OpenFlags, withVm } from '../session.ts'

/** Registers that are printed side by side, and belong together. */
const GROUPS: readonly (readonly (keyof Registers)[])[] = [
  ['rax', 'rbx', 'rcx', 'rdx'],
  ['rsi', 'rdi', 'rbp', 'rsp'],
  ['r8', 'r9', 'r10', 'r11'],
  ['r12', 'r13', 'r14', 'r15'],
  ['rip', 'rflags'],
  ['cr0', 'cr2', 'cr3', 'cr4'],
  ['cr8', 'xcr0', 'efer', 'apicBase'],
  ['dr0', 'dr1', 'dr2', 'dr3'],
  ['dr6', 'dr7'],
  ['star', 'lstar', 'cstar', 'fmask'],
  ['sysenterCs', 'sysenterEsp', 'sysenterEip'],
  ['kernelGsBase', 'pat', 'tsc'],
]
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'ldt', 'tr'] as const
const TABLES = ['gdt', 'idt'] as const
const NAME_WIDTH = 12
const SEGMENT_WIDTH = 4

/** `microvmi regs TARGET` */
export function regsCommand(
  io: Io,
  target: string,
  flags: OpenFlags & { readonly json?: boolean; readonly vcpu?: number },
): Promise<void> {
  return withVm(io, target, flags, ['registers.read'], (vm) => {
    const vcpus = flags.vcpu === undefined ? Array.from({ length: vm.vcpuCount }, (_, index) => index) : [flags.vcpu]
    const all = vcpus.map((vcpu) => ({ vcpu, registers: vm.readRegisters(vcpu) }))
    if (flags.json) printJson(io, all)
    else io.stdout.write(all.map(({ vcpu, registers }) => `vcpu ${vcpu}\n${printed(registers)}`).join('\n'))
  })
}

function printed(registers: Registers): string {
  const groups = GROUPS.map((names) =>
    names
      .map((name) => word(name, registers[name]))
      .join('')
      .trimEnd(),
  )
  const segments = SEGMENTS.map((name) => segment(name, registers[name]))
  const tables = TABLES.map((name) => descriptorTable(name, registers[name]))
  const lines = [...groups, ...segments, ...tables].filter((line) => line !== '')
  return lines.map((line) => `  ${line}\n`).join('')
}

/** What the backend does not give is left out. */
function word(name: string, value: unknown): string {
  return typeof value === 'bigint' ? `${name.padEnd(NAME_WIDTH)} ${value.toString(16).padStart(16, '0')}  ` : ''
}

function segment(name: string, value: Segment | undefined): string {
  if (!value) return ''
  const { selector, base, limit, attributes } = value
  const parts = [
    `${name.padEnd(SEGMENT_WIDTH)} ${selector.toString(16).padStart(4, '0')}`,
    ...(base === undefined ? [] : [`base ${base.toString(16).padStart(16, '0')}`]),
    ...(limit === undefined ? [] : [`limit ${limit.toString(16).padStart(8, '0')}`]),
    ...(attributes === undefined ? [] : [`attributes ${hex(attributes, 4)}`]),
  ]
  return parts.join('  ')
}

function descriptorTable(name: string, value: DescriptorTable | undefined): string {
  if (!value) return ''
  const base = value.base.toString(16).padStart(16, '0')
  return `${name.padEnd(SEGMENT_WIDTH)}       base ${base}  limit ${value.limit.toString(16).padStart(8, '0')}`
}
