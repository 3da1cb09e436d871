import type { RegisterName } from '@microvmi/core/driver'

/** How a register lies in the value that the library gives. */
type RegisterForm = 'integer' | 'segment' | 'table'

/** One register of the current SDK. */
export interface SavedRegister {
  readonly register: RegisterName
  readonly id: number
  readonly form: RegisterForm
}

const GENERAL = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const
const EXTENDED = ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const
const CONTROL = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const

/** VmSavedStateDumpDefs.h, REGISTER_ID: 18 to 43 are the vector and floating point registers. */
export const REGISTERS: readonly SavedRegister[] = [
  ...numbered([...GENERAL, ...EXTENDED], 0, 'integer'),
  ...numbered(CONTROL, 44, 'integer'),
  ...numbered(['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr'], 56, 'segment'),
  ...numbered(['idt', 'gdt'], 64, 'table'),
]

/** VmSavedStateDumpDefs.h of SDK 10.0.17763, REGISTER_ID_X64, in its order: 18 to 53 are halves of vector registers. */
export const OLD_INTEGERS: readonly SavedRegister[] = [
  ...numbered([...GENERAL, ...EXTENDED], 0, 'integer'),
  ...numbered(CONTROL, 54, 'integer'),
]

/** The same list: a segment is its selector, and for FS and GS a base. Its limits and attributes are not there. */
export const OLD_SEGMENTS = [
  { register: 'cs', selector: 68, base: undefined },
  { register: 'ds', selector: 69, base: undefined },
  { register: 'es', selector: 70, base: undefined },
  { register: 'fs', selector: 71, base: 67 },
  { register: 'gs', selector: 72, base: 66 },
  { register: 'ss', selector: 73, base: undefined },
  { register: 'tr', selector: 74, base: undefined },
  { register: 'ldt', selector: 75, base: undefined },
] as const

export const OLD_TABLES = [
  { register: 'idt', base: 76, limit: 77 },
  { register: 'gdt', base: 78, limit: 79 },
] as const

/** CR0's number in each list. */
export const CR0 = 44
export const OLD_CR0 = 54

function numbered(names: readonly RegisterName[], first: number, form: RegisterForm): SavedRegister[] {
  return names.map((register, index) => ({ register, id: first + index, form }))
}
