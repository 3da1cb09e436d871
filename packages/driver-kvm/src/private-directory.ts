import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PREFIX = 'microvmi-kvm-'

/**
 * A directory of mode 0700 for what QEMU writes for us and for the socket of a gdbstub of ours; given to QEMU's user
 * where that is another one and we may. Made when it is first needed.
 */
export class PrivateDirectory {
  readonly #pid: number
  #directory: string | undefined

  /** @param pid QEMU's process */
  constructor(pid: number) {
    this.#pid = pid
  }

  /** The path of a file in it. */
  path(name: string): string {
    this.#directory ??= create(this.#pid)
    return join(this.#directory, name)
  }

  remove(): void {
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true })
    this.#directory = undefined
  }
}

function create(pid: number): string {
  const parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  removeLeftovers(parent)
  const directory = mkdtempSync(join(parent, `${PREFIX}${process.pid}-`))
  const { uid, gid } = statSync(`/proc/${pid}`)
  if (process.getuid?.() === 0 && uid !== 0) chownSync(directory, uid, gid)
  return directory
}

/** What a killed process of this user's left behind. */
function removeLeftovers(parent: string): void {
  for (const name of readdirSync(parent)) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1]
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue
    const path = join(parent, name)
    if (statSync(path).uid === process.getuid?.() || process.getuid?.() === 0)
      rmSync(path, { recursive: true, force: true })
  }
}

/** Whether a path is in such a directory, and of a process that has ended. */
export function isLeftover(path: string): boolean {
  const owner = new RegExp(`/${PREFIX}(\\d+)-[^/]+/`).exec(path)?.[1]
  return owner !== undefined && !existsSync(`/proc/${owner}`)
}
