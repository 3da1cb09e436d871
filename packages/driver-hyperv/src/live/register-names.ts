import type { RegisterName } from '@microvmi/core/driver'

/** What an HV_REGISTER_VALUE holds. */
type ValueForm = 'integer' | 'segment' | 'table'

/** A register as HV_REGISTER_NAME numbers it, and the form of its value. */
export interface HypervisorRegister {
  readonly register: RegisterName
  readonly name: number
  readonly form: ValueForm
}

/** Bit 0 of its value: the vCPU is suspended until it is cleared (HvRegisterExplicitSuspend). */
export const EXPLICIT_SUSPEND = 0x0000_0000

/** HvX64RegisterRip: every vCPU has one. */
export const RIP = 0x0002_0010

/** Runs of consecutive numbers (Hypervisor Top Level Functional Specification, HV_REGISTER_NAME). */
const RUNS: readonly (readonly [first: number, form: ValueForm, registers: readonly RegisterName[]])[] = [
  [0x0002_0000, 'integer', ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi']],
  [0x0002_0008, 'integer', ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags']],
  [0x0004_0000, 'integer', ['cr0', 'cr2', 'cr3', 'cr4', 'cr8']],
  [0x0005_0000, 'integer', ['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7']],
  [0x0006_0000, 'segment', ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr']],
  [0x0007_0000, 'table', ['idt', 'gdt']],
  [0x0008_0000, 'integer', ['tsc', 'efer', 'kernelGsBase', 'apicBase', 'pat']],
  [0x0008_0005, 'integer', ['sysenterCs', 'sysenterEip', 'sysenterEsp', 'star', 'lstar', 'cstar', 'fmask']],
]

/** The registers that a partition's vCPU may give. */
export const REGISTERS: readonly HypervisorRegister[] = RUNS.flatMap(([first, form, registers]) =>
  registers.map((register, index) => ({ register, name: first + index, form })),
)

/** Setting these would break the guest's clock or its interrupts; the others take what the processor takes. */
export const READ_ONLY: ReadonlySet<RegisterName> = new Set<RegisterName>(['tsc', 'apicBase'])
