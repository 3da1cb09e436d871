import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { LabUnavailable } from '@microvmi/lab-debian'
import { commandOf, USAGE, UsageError } from './command-line.ts'
import { factsIn, type GuestFacts } from './facts.ts'
import { type QemuOptions, runDirectories, startQemu } from './qemu.ts'
import { keeperOf, processIn } from './run-directory.ts'

const STOP_DEADLINE = 10_000

class Interrupted extends Error {}

try {
  const command = commandOf(process.argv.slice(2))
  if (command.name === 'up') await up(command.options)
  if (command.name === 'status') status()
  if (command.name === 'down') await down()
} catch (error) {
  process.exitCode = 1
  if (error instanceof UsageError) {
    console.error(`${error.message}\n\n${USAGE}`)
    process.exitCode = 2
  } else {
    console.error(error instanceof LabUnavailable || error instanceof Interrupted ? error.message : error)
  }
}

async function up(options: QemuOptions): Promise<void> {
  // From here on: nobody but this process would end a guest that is not up yet.
  const interruption = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => interruption.abort(new Interrupted(`${signal}: no guest was started`)))
  }
  const lab = await startQemu({ ...options, detached: true })
  try {
    const facts = options.paused ? undefined : await Promise.race([lab.ready(), aborted(interruption.signal)])
    interruption.signal.throwIfAborted()
    const { name, pid, directory, qmp, ownQmp, gdb, ramFile } = lab
    print({ name, pid, directory, qmp, ownQmp, gdb, ramFile, facts })
  } catch (error) {
    await lab.stop()
    throw error
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}

function status(): void {
  print(
    runDirectories.running().map((directory) => {
      const there = (name: string) => (existsSync(join(directory, name)) ? join(directory, name) : undefined)
      return {
        directory,
        pid: processIn(directory),
        // A guest of a test's ends with the test.
        endsBy: keeperOf(directory) === 'command' ? 'down' : 'itself',
        qmp: there('qmp'),
        ownQmp: there('own'),
        gdb: there('gdb'),
        ramFile: there('ram'),
        ...told(there('console')),
      }
    }),
  )
}

function told(console: string | undefined): { facts?: GuestFacts | undefined; problem?: string } {
  try {
    return { facts: factsIn(console === undefined ? '' : readFileSync(console, 'latin1')) }
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) }
  }
}

async function down(): Promise<void> {
  for (const directory of runDirectories.running()) {
    const pid = processIn(directory)
    if (pid === undefined || keeperOf(directory) !== 'command') continue
    process.kill(pid, 'SIGKILL')
    for (const end = Date.now() + STOP_DEADLINE; processIn(directory) !== undefined; await setTimeout(20)) {
      if (Date.now() > end)
        throw new Error(`QEMU (process ${pid}) lives on after SIGKILL: ${directory} is left as it is`)
    }
    rmSync(directory, { recursive: true, force: true })
    console.error(`${directory} is gone`)
  }
}

/** Addresses beyond 2^53 are printed as hexadecimal strings. */
function print(value: unknown): void {
  console.log(
    JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `0x${item.toString(16)}` : item), 2),
  )
}
