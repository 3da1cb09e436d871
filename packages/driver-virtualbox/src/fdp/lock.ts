import { createHash } from 'node:crypto'
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { mapShared, type SharedMapping, tryLockFile, unlockFile } from '../native.ts'
import { sleepSync } from './sleep.ts'

/**
 * How far a client of ours had come with its exchange. The channel's own locks have no owner: when a process of ours
 * dies, the next one sees here which of them it held.
 */
export const PHASE = {
  idle: 0,
  /** Takes the channel's lock, which was free a moment ago. */
  locking: 1,
  /** Holds it, and writes a request. */
  sending: 2,
  /** Holds it; the request is written, its reply not yet read. */
  awaiting: 3,
  /** Holds it; the reply is read. */
  done: 4,
} as const

export type Phase = (typeof PHASE)[keyof typeof PHASE]

/** The server's breakpoints are numbered up to this (FDP_MAX_BREAKPOINT). */
const MOST_BREAKPOINTS = 1024

/**
 * The lock file, as 32-bit numbers: the phase; the length of the reply that is awaited; the process that has paused
 * the VM; the server's process; then the breakpoints that are set, one bit each.
 */
const WORDS = 4 + MOST_BREAKPOINTS / 32
const LENGTH = 4 * WORDS
const [PHASE_WORD, AWAITED_WORD, PAUSER_WORD, SERVER_WORD, BREAKPOINT_WORDS] = [0, 1, 2, 3, 4]

/**
 * Serialises clients of ours on one channel, in this process and in others. The kernel drops the lock of a process
 * that dies, and what that one had begun stays noted in the file.
 */
export class FdpLock {
  readonly #fd: number
  readonly #mapping: SharedMapping
  readonly #words: Int32Array
  #isOpen = true

  /**
   * @param directory where the channel lies
   * @param channel the channel's descriptor: its owner and mode are the lock file's too
   */
  constructor(directory: string, name: string, purpose: 'exchange' | 'events', channel: number) {
    this.#fd = openLockFile(lockPath(directory, name, purpose), channel)
    try {
      this.#mapping = mapShared(this.#fd, LENGTH)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
    const { buffer, byteOffset } = this.#mapping.bytes
    this.#words = new Int32Array(buffer, byteOffset, WORDS)
  }

  /** Whether it could be taken at once. */
  tryTake(): boolean {
    return tryLockFile(this.#fd)
  }

  /** Takes it by `deadline` (of `performance.now()`); false when others of ours held it all the time. */
  take(deadline: number): boolean {
    while (!tryLockFile(this.#fd)) {
      if (performance.now() >= deadline) return false
      sleepSync(0.05)
    }
    return true
  }

  drop(): void {
    if (this.#isOpen) unlockFile(this.#fd)
  }

  get phase(): number {
    return Atomics.load(this.#words, PHASE_WORD)
  }

  set phase(phase: Phase) {
    Atomics.store(this.#words, PHASE_WORD, phase)
  }

  /** The length of the reply that is, or was, awaited. */
  get awaited(): number {
    return Atomics.load(this.#words, AWAITED_WORD)
  }

  set awaited(length: number) {
    Atomics.store(this.#words, AWAITED_WORD, length)
  }

  /** The process of the session that has paused the VM; 0 where none has. */
  get pauser(): number {
    return Atomics.load(this.#words, PAUSER_WORD)
  }

  set pauser(pid: number) {
    Atomics.store(this.#words, PAUSER_WORD, pid)
  }

  /** Notes a breakpoint of the server's, so that it can be removed when this process was killed before it could. */
  noteBreakpoint(id: number, isSet: boolean): void {
    if (id < 0 || id >= MOST_BREAKPOINTS) return
    const [word, bit] = [BREAKPOINT_WORDS + (id >> 5), 1 << (id & 31)]
    if (isSet) Atomics.or(this.#words, word, bit)
    else Atomics.and(this.#words, word, ~bit)
  }

  /** The breakpoints that are noted. */
  breakpoints(): number[] {
    return Array.from({ length: MOST_BREAKPOINTS }, (_, id) => id).filter(
      (id) => (Atomics.load(this.#words, BREAKPOINT_WORDS + (id >> 5)) & (1 << (id & 31))) !== 0,
    )
  }

  /** Forgets what is noted of another server: the VM was started again since. */
  forgetUnless(server: number): void {
    if (Atomics.exchange(this.#words, SERVER_WORD, server) === server) return
    this.#words.fill(0, BREAKPOINT_WORDS)
    this.pauser = 0
    this.phase = PHASE.idle
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#mapping.discard()
    closeSync(this.#fd)
  }
}

/** The name of a VM may be as long as a file's name: a hash of it fits always. */
export function lockPath(directory: string, name: string, purpose: string): string {
  const key = createHash('sha256').update(name).digest('hex').slice(0, 32)
  return join(directory, `microvmi-fdp-${key}-${purpose}`)
}

function openLockFile(path: string, channel: number): number {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW
  // Without O_CREAT first: kernels refuse it for files of others in a directory like /dev/shm (fs.protected_regular).
  const fd = openOr(path, flags) ?? openOr(path, flags | constants.O_CREAT | constants.O_EXCL) ?? openOr(path, flags)
  if (fd === undefined) throw new MicrovmiError('BUSY', `${path} comes and goes: is something cleaning it up?`)
  try {
    const found = fstatSync(fd)
    const owner = fstatSync(channel)
    const { uid: own = -1 } = { uid: process.getuid?.() }
    if (!found.isFile() || ![own, owner.uid, 0].includes(found.uid)) {
      throw new MicrovmiError('DENIED', `${path} is not a file of this user or of the VM's: remove it`)
    }
    if (found.size < LENGTH) {
      // Who may use the channel may use the lock.
      if (found.uid === own) fchmodSync(fd, owner.mode & 0o666)
      if (own === 0) fchownSync(fd, owner.uid, owner.gid)
      ftruncateSync(fd, LENGTH)
    }
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Undefined where it is not there (or, with O_EXCL, is there). */
function openOr(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags, 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EEXIST') return undefined
    if (code === 'EACCES' || code === 'EPERM' || code === 'ELOOP') {
      throw new MicrovmiError('DENIED', `no right to use ${path}, which serialises clients of this VM: remove it`, {
        cause: error,
      })
    }
    throw error
  }
}
