import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { factsIn } from './facts.ts'
import { startQemu } from './qemu.ts'
import { runDirectories } from './run-directory.ts'

const USAGE = `usage: npm run lab:qemu:up -- [--name NAME] [--vcpus N] [--memory MIB] [--ram file|memfd|private] [--gdb]
       npm run lab:qemu:status
       npm run lab:qemu:down

up starts a Linux guest and prints, as JSON, how to reach it and what is in it; it runs until down.`

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    name: { type: 'string' },
    vcpus: { type: 'string' },
    memory: { type: 'string' },
    ram: { type: 'string' },
    gdb: { type: 'boolean' },
  },
})

const commands: Readonly<Record<string, () => Promise<void> | void>> = { up, down, status }
const command = commands[positionals[0] ?? '']
if (command) {
  await command()
} else {
  console.error(USAGE)
  process.exitCode = 2
}

async function up(): Promise<void> {
  const { ram } = values
  if (ram !== undefined && ram !== 'file' && ram !== 'memfd' && ram !== 'private') throw new Error(USAGE)
  const lab = await startQemu({
    detached: true,
    ...(values.name === undefined ? {} : { name: values.name }),
    ...(values.vcpus === undefined ? {} : { vcpus: Number(values.vcpus) }),
    ...(values.memory === undefined ? {} : { memoryMiB: Number(values.memory) }),
    ...(ram === undefined ? {} : { ram }),
    gdb: values.gdb ?? false,
  })
  const { name, pid, directory, qmp, ownQmp, gdb, ramFile } = lab
  print({ name, pid, directory, qmp, ownQmp, gdb, ramFile, facts: await lab.ready() })
}

function status(): void {
  print(
    runDirectories().map((directory) => ({
      directory,
      pid: pidOf(directory),
      facts: factsIn(readFileSync(join(directory, 'console'), 'latin1')),
    })),
  )
}

function down(): void {
  for (const directory of runDirectories()) {
    process.kill(pidOf(directory), 'SIGKILL')
    rmSync(directory, { recursive: true, force: true })
    console.error(`${directory} is gone`)
  }
}

function pidOf(directory: string): number {
  return Number(readFileSync(join(directory, 'pid'), 'utf8'))
}

/** Addresses beyond 2^53 are printed as hexadecimal strings. */
function print(value: unknown): void {
  console.log(
    JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `0x${item.toString(16)}` : item), 2),
  )
}
