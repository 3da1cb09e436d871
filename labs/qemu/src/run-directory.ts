import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { LabUnavailable } from '@microvmi/lab-debian'

/** A lab starts its emulator within this time, in milliseconds. */
const START_LIMIT = 60_000

/** The programs that machines run in. */
const EMULATOR = /^(?:qemu-system-|bochs$)/

/** The file that makes a directory one of ours; what it says is who ends the guest. */
const MARKER = 'microvmi-lab'
const PID = 'pid'

/** What ends a guest: the process that started it, by its own end; or a command that is given later. */
export type Keeper = 'process' | 'command'

/**
 * A directory for each guest, with its sockets, console and RAM, together in memory, and at a path short enough for a
 * socket's address. Those of other users, and what merely has such a name, are neither listed nor touched.
 */
export class RunDirectories {
  readonly #prefix: string
  readonly #parent: string

  constructor(prefix: string, parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()) {
    this.#prefix = prefix
    this.#parent = parent
  }

  /**
   * A new one, of mode 0700. What killed processes left behind is removed. Throws `LabUnavailable` where there is no
   * space for what the guest will hold there, in bytes.
   */
  create(keeper: Keeper, bytes: number): string {
    for (const directory of this.#all()) {
      if (!isStarting(directory) && processIn(directory) === undefined)
        rmSync(directory, { recursive: true, force: true })
    }
    this.#needSpace(bytes)
    const directory = mkdtempSync(join(this.#parent, this.#prefix))
    writeFileSync(join(directory, MARKER), keeper, { flag: 'wx', mode: 0o600 })
    return directory
  }

  /** Those of guests that run, or are about to. */
  running(): string[] {
    return this.#all().filter((directory) => isStarting(directory) || processIn(directory) !== undefined)
  }

  #all(): string[] {
    return readdirSync(this.#parent)
      .filter((name) => name.startsWith(this.#prefix))
      .map((name) => join(this.#parent, name))
      .filter((directory) => isOurs(lstat(directory)) && isOurs(lstat(join(directory, MARKER))))
  }

  #needSpace(bytes: number): void {
    const { bavail, bsize } = statfsSync(this.#parent)
    const mebibytes = (count: number) => `${Math.floor(count / 2 ** 20)} MiB`
    if (bavail * bsize >= bytes) return
    throw new LabUnavailable(
      `needs ${mebibytes(bytes)} on ${this.#parent} for the guest's RAM: there are ${mebibytes(bavail * bsize)} free`,
    )
  }
}

/** Notes which process a directory belongs to: when that has ended, the next start of a lab removes the directory. */
export function noteOwner(directory: string, pid: number): void {
  const whole = join(directory, `${PID}.new`)
  writeFileSync(whole, String(pid), { mode: 0o600 })
  renameSync(whole, join(directory, PID))
}

/** The emulator that a directory belongs to, if it lives: this user's, and one that was told of this directory. */
export function processIn(directory: string): number | undefined {
  const text = read(join(directory, PID)) ?? ''
  if (!/^[1-9]\d*$/.test(text)) return undefined
  if (lstat(`/proc/${text}`)?.uid !== process.getuid?.()) return undefined
  // The number may long be another process's. What ended and is still in the table has no command line.
  const words = (read(`/proc/${text}/cmdline`) ?? '').split('\0')
  const isEmulator = words.some((word) => EMULATOR.test(basename(word)))
  return isEmulator && words.some((word) => word.includes(`${directory}/`)) ? Number(text) : undefined
}

export function keeperOf(directory: string): Keeper {
  return read(join(directory, MARKER)) === 'command' ? 'command' : 'process'
}

/** Just made by another process, which has not noted its emulator yet; or left by one that was killed before it could. */
function isStarting(directory: string): boolean {
  const marker = lstat(join(directory, MARKER))
  return marker !== undefined && !existsSync(join(directory, PID)) && Date.now() - marker.mtimeMs < START_LIMIT
}

/** This user's own, and nobody else's to read or write. Never a link. */
function isOurs(stats: Stats | undefined): boolean {
  if (stats === undefined || !(stats.isDirectory() || stats.isFile())) return false
  return stats.uid === process.getuid?.() && (stats.mode & 0o077) === 0
}

function lstat(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

/** A file's text; `undefined` where it is not there, or its process has just ended. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}
