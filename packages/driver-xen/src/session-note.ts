import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const DIRECTORY = '/run/microvmi-xen'

/** A byte of the guest's that was replaced. */
export interface Patch {
  readonly address: number
  readonly original: number
}

/**
 * A note of who monitors a domain. Xen has one monitor for each domain and does not tell whose it is: by this note one
 * that a session of ours left behind when its process was killed is told from one that somebody uses.
 */
export class SessionNote {
  readonly #path: string

  constructor(uuid: string) {
    this.#path = join(DIRECTORY, uuid)
  }

  /** What a process of ours that has ended left behind; `undefined` where none did. */
  leftBehind(): readonly Patch[] | undefined {
    const [owner = '', ...patches] = (this.#read() ?? '').split('\n')
    const [pid, start] = owner.split(' ')
    if (pid === undefined || start === undefined || startOf(Number(pid)) === start) return undefined
    return patches.filter(Boolean).map((line) => {
      const [address, original] = line.split(' ').map(Number)
      return { address: address ?? 0, original: original ?? 0 }
    })
  }

  /** @param patches the bytes of the guest's that are replaced now */
  write(patches: readonly Patch[]): void {
    mkdirSync(DIRECTORY, { recursive: true, mode: 0o700 })
    const lines = patches.map(({ address, original }) => `${address} ${original}`)
    writeFileSync(this.#path, [`${process.pid} ${startOf(process.pid)}`, ...lines].join('\n'), { mode: 0o600 })
  }

  remove(): void {
    rmSync(this.#path, { force: true })
  }

  #read(): string | undefined {
    try {
      return readFileSync(this.#path, 'latin1')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }
}

/** When a process began, in clock ticks since boot (proc(5), /proc/pid/stat, field 22): pids are used again. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name before may hold spaces and brackets.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}
