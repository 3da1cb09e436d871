import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const DIRECTORY = '/run/microvmi-xen'

/** A byte of the guest's that was replaced. */
export interface Patch {
  readonly address: number
  readonly original: number
}

/** What a session has in a domain. */
export type Use = 'monitor' | 'views'

/**
 * A note of who monitors a domain. Xen has one monitor for each domain and does not tell whose it is: by this note one
 * that a session of ours left behind when its process was killed is told from one that somebody uses.
 */
export class SessionNote {
  readonly #path: string
  readonly #uses = new Set<Use>()
  #patches: readonly Patch[] = []

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

  /** From now on there is something that must not be left behind. */
  begin(use: Use): void {
    this.#uses.add(use)
    this.#write()
  }

  /** @param patches the bytes of the guest's that are replaced now */
  replaced(patches: readonly Patch[]): void {
    this.#patches = patches
    if (this.#uses.size > 0) this.#write()
  }

  end(use: Use): void {
    this.#uses.delete(use)
    if (this.#uses.size > 0) this.#write()
    else this.remove()
  }

  remove(): void {
    rmSync(this.#path, { force: true })
  }

  #write(): void {
    mkdirSync(DIRECTORY, { recursive: true, mode: 0o700 })
    const lines = this.#patches.map(({ address, original }) => `${address} ${original}`)
    writeFileSync(this.#path, [`${process.pid} ${startOf(process.pid)}`, ...lines].join('\n'), { mode: 0o600 })
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
