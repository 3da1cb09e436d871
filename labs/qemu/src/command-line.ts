import { parseArgs } from 'node:util'
import type { QemuOptions } from './qemu.ts'

/** What is wrong with how the command was called. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export const USAGE = `usage: npm run lab:qemu:up -- [options]
       npm run lab:qemu:status
       npm run lab:qemu:down

up starts a Linux guest and prints, as JSON, how to reach it and what is in it; it runs until down.
status prints all guests of this user's; down ends those that up has started.

  --name NAME         the VM's name
  --vcpus N           1 to 64
  --memory MIB        128 to 65536, default 512
  --ram PLACE         file (default), memfd or private
  --machine MACHINE   q35 (default) or pc
  --cpu MODEL         QEMU's model of the processor
  --gdb               with a gdbstub
  --paused            do not start the vCPUs: there will be no facts`

/** What a user asked for. */
export type Command =
  | { readonly name: 'up'; readonly options: QemuOptions }
  | { readonly name: 'status' }
  | { readonly name: 'down' }

/** Reads the words after the program's name. Throws `UsageError`. */
export function commandOf(words: readonly string[]): Command {
  const { positionals, values } = parsed(words)
  const [name, ...more] = positionals
  if (more.length > 0) throw new UsageError(`there is nothing to do with ${more.join(' ')}`)
  if (name === 'status' || name === 'down') {
    const [option] = Object.keys(values)
    if (option !== undefined) throw new UsageError(`${name} takes no --${option}`)
    return { name }
  }
  if (name !== 'up') throw new UsageError(name === undefined ? 'what is to be done?' : `there is no command ${name}`)
  return { name, options: optionsOf(values) }
}

type Values = ReturnType<typeof parsed>['values']

function parsed(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        name: { type: 'string' },
        vcpus: { type: 'string' },
        memory: { type: 'string' },
        ram: { type: 'string' },
        machine: { type: 'string' },
        cpu: { type: 'string' },
        gdb: { type: 'boolean' },
        paused: { type: 'boolean' },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

function optionsOf({ name, vcpus, memory, ram, machine, cpu, gdb, paused }: Values): QemuOptions {
  return {
    ...(name === undefined ? {} : { name }),
    ...(vcpus === undefined ? {} : { vcpus: count('vcpus', vcpus, 1, 64) }),
    ...(memory === undefined ? {} : { memoryMiB: count('memory', memory, 128, 65_536) }),
    ...(ram === undefined ? {} : { ram: oneOf('ram', ram, ['file', 'memfd', 'private']) }),
    ...(machine === undefined ? {} : { machine: oneOf('machine', machine, ['q35', 'pc']) }),
    ...(cpu === undefined ? {} : { cpu }),
    gdb: gdb ?? false,
    paused: paused ?? false,
  }
}

function count(option: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (value >= least && value <= most) return value
  throw new UsageError(`--${option} takes a number from ${least} to ${most}, not ${JSON.stringify(text)}`)
}

function oneOf<const T extends string>(option: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text)
  if (found !== undefined) return found
  throw new UsageError(`--${option} takes ${allowed.join(', ')}, not ${JSON.stringify(text)}`)
}
