import { badArgument } from '@microvmi/core/driver'
import {
  CONTROL_NAMES,
  INSTRUCTIONS,
  type Instruction,
  lengthOf,
  OPERAND_LENGTHS,
  type Operands,
  REGISTER_NAMES,
} from './instructions.ts'

/** A program in bytes, and where its labels are. */
export interface Program {
  readonly bytes: Uint8Array
  /** Virtual addresses, canonical. */
  readonly labels: ReadonlyMap<string, bigint>
}

interface Line {
  readonly number: number
  readonly text: string
  readonly instruction: Instruction
  readonly arguments: readonly string[]
  /** From the program's start. */
  readonly offset: number
}

type Resolve = (text: string) => bigint | undefined

/**
 * Assembles a program of the toy instruction set (docs/instructions.md): a label or an instruction a line, `;` begins
 * a comment.
 *
 * Throws `BAD_ARGUMENT` with the line for what it cannot read.
 *
 * @param origin canonical virtual address of the first byte
 * @param constants names that may stand for numbers
 *
 * @example
 * ```ts
 * import { assemble } from '@microvmi/mock'
 *
 * const { bytes, labels } = assemble('again:  add rax, 1\n  jmp again', 0x40_0000n)
 * console.log(bytes.length, labels.get('again')) // 11 4194304n
 * ```
 */
export function assemble(source: string, origin: bigint, constants: Readonly<Record<string, bigint>> = {}): Program {
  const known = new Map(Object.entries(constants))
  const labels = new Map<string, bigint>()
  const resolve: Resolve = (text) => parseNumber(text) ?? labels.get(text) ?? known.get(text)
  const lines: Line[] = []
  let offset = 0
  for (const [index, raw] of source.split('\n').entries()) {
    let text = raw.replace(/;.*/, '').trim()
    const label = /^([a-z_]\w*):/i.exec(text)
    if (label?.[1]) {
      if (labels.has(label[1]) || known.has(label[1])) throw wrong(index + 1, `${label[1]} is there twice`)
      labels.set(label[1], origin + BigInt(offset))
      text = text.slice(label[0].length).trim()
    }
    if (text === '') continue
    const line = parseLine(text, index + 1, offset, resolve)
    lines.push(line)
    offset += lengthOf(line.instruction)
  }
  const bytes = new Uint8Array(offset)
  for (const line of lines) encode(line, bytes, origin, resolve)
  return { bytes, labels }
}

function wrong(line: number, why: string): Error {
  return badArgument(`line ${line} of the program: ${why}`)
}

function parseNumber(text: string): bigint | undefined {
  const match = /^(-?)(0x[\da-f_]+|[\d_]+)$/i.exec(text)
  if (!match?.[2]) return undefined
  const value = BigInt(match[2].replaceAll('_', ''))
  return match[1] ? -value : value
}

function parseLine(text: string, number: number, offset: number, resolve: Resolve): Line {
  const [, name = '', rest = ''] = /^(\S+)\s*(.*)$/.exec(text) ?? []
  const given = rest === '' ? [] : rest.split(',').map((argument) => argument.trim())
  const candidates = INSTRUCTIONS.filter((instruction) => instruction.name === name)
  if (candidates.length === 0) throw wrong(number, `there is no instruction ${name}`)
  const instruction = candidates
    // The shorter forms come later in the table: mov of 32 bits behind mov of 64.
    .reverse()
    .find(({ operands }) => fits(operands, given, name, resolve))
  if (!instruction) throw wrong(number, `${name} does not take '${rest}'`)
  return { number, text, instruction, arguments: given, offset }
}

function register(text: string | undefined): number {
  return (REGISTER_NAMES as readonly (string | undefined)[]).indexOf(text)
}

function control(text: string | undefined): number {
  return (CONTROL_NAMES as readonly (string | undefined)[]).includes(text) ? Number(text?.slice(2)) : -1
}

function memory(text: string | undefined): { base: number; displacement: string } | undefined {
  const match = /^\[\s*(\w+)\s*(?:([+-])\s*(\w+))?\s*\]$/.exec(text ?? '')
  const base = register(match?.[1])
  if (!match || base < 0) return undefined
  return { base, displacement: match[3] === undefined ? '0' : `${match[2] === '-' ? '-' : ''}${match[3]}` }
}

function fits(operands: Operands, given: readonly string[], name: string, resolve: Resolve): boolean {
  const [first, second] = given
  const isName = (text: string | undefined) => register(text) >= 0 || control(text) >= 0 || memory(text) !== undefined
  const oneRegister = given.length === 1 && register(first) >= 0
  const registerFirst = given.length === 2 && register(first) >= 0
  switch (operands) {
    case 'none':
      return given.length === 0
    case 'register':
    case 'selector':
      return oneRegister
    case 'pair':
      return registerFirst && register(second) >= 0
    case 'load':
      return registerFirst && memory(second) !== undefined
    case 'store':
      return given.length === 2 && memory(first) !== undefined && register(second) >= 0
    case 'imm32': {
      if (!registerFirst || isName(second)) return false
      // A label that comes later is not known yet: it takes 64 bits, as any address.
      const value = resolve(second ?? '')
      return name === 'mov' ? value !== undefined && value >= 0n && value < 2n ** 32n : true
    }
    case 'imm64':
    case 'shift':
      return registerFirst && !isName(second)
    case 'imm8':
    case 'relative':
      return given.length === 1 && !isName(first)
    case 'from-control':
      return registerFirst && control(second) >= 0
    case 'to-control':
      return given.length === 2 && control(first) >= 0 && register(second) >= 0
    case 'table':
      return given.length === 1 && memory(first) !== undefined
  }
}

function encode(line: Line, bytes: Uint8Array, origin: bigint, resolve: Resolve): void {
  const { instruction, offset, number } = line
  const [first, second] = line.arguments
  const view = new DataView(bytes.buffer)
  const at = offset + instruction.opcode.length
  bytes.set(instruction.opcode, offset)

  const immediate = (text: string | undefined, least: bigint, beyond: bigint): bigint => {
    const negative = text?.startsWith('-') && parseNumber(text) === undefined
    const value = resolve((negative ? text?.slice(1) : text) ?? '')
    if (value === undefined) throw wrong(number, `what is ${text}?`)
    const signed = negative ? -value : value
    if (signed < least || signed >= beyond) throw wrong(number, `${text} does not fit here`)
    return signed
  }
  const displaced = (text: string | undefined): void => {
    view.setInt16(at + 1, Number(immediate(memory(text)?.displacement, -(2n ** 15n), 2n ** 15n)), true)
  }
  switch (instruction.operands) {
    case 'none':
      break
    case 'register':
      view.setUint8(at, register(first))
      break
    case 'pair':
      view.setUint8(at, (register(first) << 4) | register(second))
      break
    case 'load':
      view.setUint8(at, (register(first) << 4) | (memory(second)?.base ?? 0))
      displaced(second)
      break
    case 'store':
      view.setUint8(at, ((memory(first)?.base ?? 0) << 4) | register(second))
      displaced(first)
      break
    case 'imm32': {
      const [least, beyond] = instruction.name === 'mov' ? [0n, 2n ** 32n] : [-(2n ** 31n), 2n ** 31n]
      view.setUint8(at, register(first))
      view.setUint32(at + 1, Number(BigInt.asUintN(32, immediate(second, least, beyond))), true)
      break
    }
    case 'imm64':
      view.setUint8(at, register(first))
      view.setBigUint64(at + 1, BigInt.asUintN(64, immediate(second, -(2n ** 63n), 2n ** 64n)), true)
      break
    case 'shift':
      view.setUint8(at, register(first))
      view.setUint8(at + 1, Number(immediate(second, 0n, 64n)))
      break
    case 'imm8':
      view.setUint8(at, Number(immediate(first, 0n, 256n)))
      break
    case 'relative': {
      const next = origin + BigInt(at + OPERAND_LENGTHS.relative)
      const target = immediate(first, -(2n ** 63n), 2n ** 64n)
      const distance = target - next
      if (BigInt.asIntN(32, distance) !== distance) throw wrong(number, `${first} is too far away`)
      view.setInt32(at, Number(distance), true)
      break
    }
    case 'from-control':
      view.setUint8(at, (control(second) << 4) | register(first))
      break
    case 'to-control':
      view.setUint8(at, (control(first) << 4) | register(second))
      break
    case 'selector':
      view.setUint8(at, ((instruction.operation ?? 0) << 4) | register(first))
      break
    case 'table':
      view.setUint8(at, ((instruction.operation ?? 0) << 4) | (memory(first)?.base ?? 0))
      break
  }
}
