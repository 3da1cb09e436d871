/*
 * The instruction set of the guest's vCPUs: a toy, described in docs/instructions.md. Where x86-64 has an instruction
 * of the same meaning and operands, its opcode is taken; the others have opcodes of their own.
 */

/** General registers in x86's order: what a register byte holds. */
export const REGISTER_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const

export const RAX = 0
export const RCX = 1
export const RDX = 2
export const RSP = 4

/** Names of the control registers that `mov` reaches. */
export const CONTROL_NAMES = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8'] as const

/**
 * What follows the opcode.
 *
 * | operands | bytes | written |
 * | --- | --- | --- |
 * | `none` | | |
 * | `register` | register | `push rax` |
 * | `pair` | first << 4 \| second | `add rax, rbx` |
 * | `load` | register << 4 \| base, signed 16-bit displacement | `load64 rax, [rbx+8]` |
 * | `store` | base << 4 \| register, signed 16-bit displacement | `store64 [rbx+8], rax` |
 * | `imm32` | register, 32 bits, zero-extended for mov, sign-extended else | `add rax, -1` |
 * | `imm64` | register, 64 bits | `mov rax, 0x123456789a` |
 * | `shift` | register, 8 bits | `shl rax, 3` |
 * | `imm8` | 8 bits | `out8 0xe9` |
 * | `relative` | signed 32 bits, from the next instruction | `jmp label` |
 * | `from-control` | control << 4 \| register | `mov rax, cr3` |
 * | `to-control` | control << 4 \| register | `mov cr3, rax` |
 * | `selector` | operation << 4 \| register | `ltr rax` |
 * | `table` | operation << 4 \| register | `lgdt [rax]` |
 */
export type Operands =
  | 'none'
  | 'register'
  | 'pair'
  | 'load'
  | 'store'
  | 'imm32'
  | 'imm64'
  | 'shift'
  | 'imm8'
  | 'relative'
  | 'from-control'
  | 'to-control'
  | 'selector'
  | 'table'

/** One instruction of the set. */
export interface Instruction {
  readonly name: string
  readonly opcode: readonly number[]
  readonly operands: Operands
  /** For `selector` and `table`: the operation in the upper half of the operand byte. */
  readonly operation?: number
}

/** Bytes that the operands take. */
export const OPERAND_LENGTHS: { readonly [Kind in Operands]: number } = {
  none: 0,
  register: 1,
  pair: 1,
  load: 3,
  store: 3,
  imm32: 5,
  imm64: 9,
  shift: 2,
  imm8: 1,
  relative: 4,
  'from-control': 1,
  'to-control': 1,
  selector: 1,
  table: 1,
}

/** The longest: `mov` of 64 bits. */
export const LONGEST = 10

export const INSTRUCTIONS: readonly Instruction[] = [
  { name: 'mov', opcode: [0x10], operands: 'imm64' },
  { name: 'mov', opcode: [0x11], operands: 'imm32' },
  { name: 'mov', opcode: [0x12], operands: 'pair' },
  { name: 'jmp', opcode: [0x14], operands: 'register' },
  { name: 'call', opcode: [0x15], operands: 'register' },
  { name: 'load8', opcode: [0x20], operands: 'load' },
  { name: 'load16', opcode: [0x21], operands: 'load' },
  { name: 'load32', opcode: [0x22], operands: 'load' },
  { name: 'load64', opcode: [0x23], operands: 'load' },
  { name: 'store8', opcode: [0x28], operands: 'store' },
  { name: 'store16', opcode: [0x29], operands: 'store' },
  { name: 'store32', opcode: [0x2a], operands: 'store' },
  { name: 'store64', opcode: [0x2b], operands: 'store' },
  { name: 'add', opcode: [0x30], operands: 'pair' },
  { name: 'sub', opcode: [0x31], operands: 'pair' },
  { name: 'and', opcode: [0x32], operands: 'pair' },
  { name: 'or', opcode: [0x33], operands: 'pair' },
  { name: 'xor', opcode: [0x34], operands: 'pair' },
  { name: 'cmp', opcode: [0x35], operands: 'pair' },
  { name: 'add', opcode: [0x38], operands: 'imm32' },
  { name: 'sub', opcode: [0x39], operands: 'imm32' },
  { name: 'and', opcode: [0x3a], operands: 'imm32' },
  { name: 'or', opcode: [0x3b], operands: 'imm32' },
  { name: 'xor', opcode: [0x3c], operands: 'imm32' },
  { name: 'cmp', opcode: [0x3d], operands: 'imm32' },
  { name: 'shl', opcode: [0x3e], operands: 'shift' },
  { name: 'shr', opcode: [0x3f], operands: 'shift' },
  { name: 'push', opcode: [0x50], operands: 'register' },
  { name: 'pop', opcode: [0x58], operands: 'register' },
  { name: 'nop', opcode: [0x90], operands: 'none' },
  { name: 'pushf', opcode: [0x9c], operands: 'none' },
  { name: 'popf', opcode: [0x9d], operands: 'none' },
  { name: 'ret', opcode: [0xc3], operands: 'none' },
  { name: 'int3', opcode: [0xcc], operands: 'none' },
  { name: 'int', opcode: [0xcd], operands: 'imm8' },
  { name: 'iret', opcode: [0xcf], operands: 'none' },
  { name: 'in8', opcode: [0xe4], operands: 'imm8' },
  { name: 'in32', opcode: [0xe5], operands: 'imm8' },
  { name: 'out8', opcode: [0xe6], operands: 'imm8' },
  { name: 'out32', opcode: [0xe7], operands: 'imm8' },
  { name: 'call', opcode: [0xe8], operands: 'relative' },
  { name: 'jmp', opcode: [0xe9], operands: 'relative' },
  { name: 'int1', opcode: [0xf1], operands: 'none' },
  { name: 'hlt', opcode: [0xf4], operands: 'none' },
  { name: 'cli', opcode: [0xfa], operands: 'none' },
  { name: 'sti', opcode: [0xfb], operands: 'none' },
  { name: 'sldt', opcode: [0x0f, 0x00], operands: 'selector', operation: 0 },
  { name: 'str', opcode: [0x0f, 0x00], operands: 'selector', operation: 1 },
  { name: 'lldt', opcode: [0x0f, 0x00], operands: 'selector', operation: 2 },
  { name: 'ltr', opcode: [0x0f, 0x00], operands: 'selector', operation: 3 },
  { name: 'sgdt', opcode: [0x0f, 0x01], operands: 'table', operation: 0 },
  { name: 'sidt', opcode: [0x0f, 0x01], operands: 'table', operation: 1 },
  { name: 'lgdt', opcode: [0x0f, 0x01], operands: 'table', operation: 2 },
  { name: 'lidt', opcode: [0x0f, 0x01], operands: 'table', operation: 3 },
  { name: 'invlpg', opcode: [0x0f, 0x01], operands: 'table', operation: 7 },
  { name: 'vmcall', opcode: [0x0f, 0x01, 0xc1], operands: 'none' },
  { name: 'xgetbv', opcode: [0x0f, 0x01, 0xd0], operands: 'none' },
  { name: 'xsetbv', opcode: [0x0f, 0x01, 0xd1], operands: 'none' },
  { name: 'syscall', opcode: [0x0f, 0x05], operands: 'none' },
  { name: 'ud2', opcode: [0x0f, 0x0b], operands: 'none' },
  { name: 'mov', opcode: [0x0f, 0x20], operands: 'from-control' },
  { name: 'mov', opcode: [0x0f, 0x22], operands: 'to-control' },
  { name: 'wrmsr', opcode: [0x0f, 0x30], operands: 'none' },
  { name: 'rdtsc', opcode: [0x0f, 0x31], operands: 'none' },
  { name: 'rdmsr', opcode: [0x0f, 0x32], operands: 'none' },
  { name: 'smc', opcode: [0x0f, 0x37], operands: 'none' },
  { name: 'jb', opcode: [0x0f, 0x82], operands: 'relative' },
  { name: 'jae', opcode: [0x0f, 0x83], operands: 'relative' },
  { name: 'je', opcode: [0x0f, 0x84], operands: 'relative' },
  { name: 'jne', opcode: [0x0f, 0x85], operands: 'relative' },
  { name: 'cpuid', opcode: [0x0f, 0xa2], operands: 'none' },
]

/** Bytes of an instruction of the set. */
export function lengthOf({ opcode, operands }: Instruction): number {
  return opcode.length + OPERAND_LENGTHS[operands]
}

const oneByte: (Instruction | undefined)[] = []
const twoBytes: Instruction[][] = []
for (const instruction of INSTRUCTIONS) {
  const [first = 0, second] = instruction.opcode
  if (second === undefined) {
    oneByte[first] = instruction
  } else {
    // Those with three opcode bytes come first: their third byte would pass for an operand.
    const alike = [...(twoBytes[second] ?? []), instruction]
    twoBytes[second] = alike.sort((one, other) => other.opcode.length - one.opcode.length)
  }
}

/** The instruction at an offset, by its opcode; undefined for one that the set does not have, or that is cut off. */
export function decode(code: Uint8Array, at = 0): Instruction | undefined {
  const first = code[at]
  if (first === undefined) return undefined
  const candidates = first === 0x0f ? (twoBytes[code[at + 1] ?? -1] ?? []) : [oneByte[first]]
  const operand = code[at + 2] ?? -1
  const found = candidates.find((candidate) => {
    if (!candidate) return false
    if (candidate.opcode.length === 3) return candidate.opcode[2] === operand
    return candidate.operation === undefined || candidate.operation === operand >> 4
  })
  return found && at + lengthOf(found) <= code.length ? found : undefined
}
