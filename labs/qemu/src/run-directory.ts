import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PREFIX = 'microvmi-lab-'

/** A lab starts its QEMU within this time, in milliseconds. */
const START_LIMIT = 60_000

/** Sockets, console and RAM of one guest lie together in memory, in a path short enough for a socket's address. */
function parent(): string {
  return existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
}

/** A new directory, of mode 0700. */
export function createRunDirectory(): string {
  removeStale()
  return mkdtempSync(join(parent(), PREFIX))
}

/** Notes which process a directory belongs to: when that has ended, the next start of a lab removes it. */
export function noteOwner(directory: string, pid: number): void {
  writeFileSync(join(directory, 'pid'), String(pid))
}

/** The directories of guests that run. */
export function runDirectories(): string[] {
  return all().filter((directory) => isAlive(directory))
}

/** What killed processes left behind. */
function removeStale(): void {
  for (const directory of all()) if (!isAlive(directory)) rmSync(directory, { recursive: true, force: true })
}

function all(): string[] {
  return readdirSync(parent())
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => join(parent(), name))
}

function isAlive(directory: string): boolean {
  try {
    return existsSync(`/proc/${readFileSync(join(directory, 'pid'), 'utf8')}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    // Just made by another process, which has not noted its QEMU yet; or left by one that was killed before it could.
    return existsSync(directory) && Date.now() - statSync(directory).mtimeMs < START_LIMIT
  }
}
