import type { Io } from './io.ts'

/** Values as JSON on a line; bigints (registers, virtual addresses) as strings such as "0xffffffff81000000". */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? hex(item) : item))
}

/** Prints a value for programs. */
export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${toJson(value)}\n`)
}

/** An address or register as people read it. */
export function hex(value: bigint | number, digits = 0): string {
  return `0x${value.toString(16).padStart(digits, '0')}`
}
