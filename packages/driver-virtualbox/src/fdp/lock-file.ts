import { createHash } from 'node:crypto'
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { isByteLocked, mapShared, type SharedMapping, tryLockByte } from '../native.ts'
import { sleepSync } from './sleep.ts'

/**
 * How far a session of ours has come with its exchange. The channel's own locks have no owner: when a process of ours
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

/** Whether sessions of ours have stopped the VM. */
export const STOPPED = {
  /** It runs, or somebody else has stopped it. */
  byOthers: 0,
  /** For as long as a session holds it. */
  byHolds: 1,
  /** For longer than any session: by `setRunState`. */
  forGood: 2,
} as const

export type Stopped = (typeof STOPPED)[keyof typeof STOPPED]

/** Sessions on one VM at a time. */
const SESSIONS = 64
/** The server's breakpoints are numbered up to this (FDP_MAX_BREAKPOINT). */
const BREAKPOINTS = 1024

/** The file as 32-bit numbers: where each of them is. A session's number in it is 1 and up, 0 is nobody. */
const WORD = {
  ...{ owner: 0, phase: 1, awaited: 2, server: 3, stopped: 4, listener: 5, resumes: 6, answered: 7 },
  ...{ breakpoints: 8, holds: 8 + BREAKPOINTS / 32 },
} as const
const WORDS = WORD.holds + SESSIONS
const LENGTH = 4 * WORDS

/** Looks at the owner before the first sleep. */
const SPINS = 2000
/** Milliseconds between looks, and between two questions whether the owner lives. */
const NAP = 0.05
const NAPS_PER_QUESTION = 20

/**
 * What sessions of ours on one VM know of each other, in this process and in others: a file beside the channel, mapped
 * by each. Every session has a byte of the file locked for as long as its process lives: so a lock that a dead one
 * held, and what it had begun, are told from a living one's.
 */
export class LockFile {
  readonly #fd: number
  readonly #mapping: SharedMapping
  readonly #words: Int32Array
  readonly #session: number
  #depth = 0
  #isOpen = true

  /**
   * @param directory where the channel lies
   * @param channel the channel's descriptor: its owner and mode are the lock file's too
   */
  constructor(directory: string, name: string, channel: number) {
    const path = lockPath(directory, name)
    this.#fd = openLockFile(path, channel)
    try {
      this.#session = numberOfSession(this.#fd, path)
      this.#mapping = mapShared(this.#fd, LENGTH)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
    const { buffer, byteOffset } = this.#mapping.bytes
    this.#words = new Int32Array(buffer, byteOffset, WORDS)
    this.holds = false
    // What bears this session's number is from a dead one that had it before.
    for (const word of [WORD.owner, WORD.listener]) Atomics.compareExchange(this.#words, word, this.#session, 0)
  }

  /** Takes the lock within `timeout` milliseconds; false when others of ours held it all the time. May be nested. */
  take(timeout: number): boolean {
    if (this.#depth === 0 && !this.#tryTake() && !this.#wait(timeout)) return false
    this.#depth += 1
    return true
  }

  drop(): void {
    this.#depth -= 1
    if (this.#depth === 0) Atomics.store(this.#words, WORD.owner, 0)
  }

  get phase(): number {
    return Atomics.load(this.#words, WORD.phase)
  }

  set phase(phase: Phase) {
    Atomics.store(this.#words, WORD.phase, phase)
  }

  /** The length of the reply that is, or was, awaited. */
  get awaited(): number {
    return Atomics.load(this.#words, WORD.awaited)
  }

  set awaited(length: number) {
    Atomics.store(this.#words, WORD.awaited, length)
  }

  get stopped(): number {
    return Atomics.load(this.#words, WORD.stopped)
  }

  set stopped(stopped: Stopped) {
    Atomics.store(this.#words, WORD.stopped, stopped)
  }

  /** Whether this session wants the VM to stand still. */
  set holds(holds: boolean) {
    Atomics.store(this.#words, WORD.holds + this.#session - 1, holds ? 1 : 0)
  }

  /** Whether any other session that lives wants the VM to stand still. */
  get othersHold(): boolean {
    for (let session = 1; session <= SESSIONS; session++) {
      if (session === this.#session || Atomics.load(this.#words, WORD.holds + session - 1) === 0) continue
      if (this.#isAlive(session)) return true
    }
    return false
  }

  /** Who receives events: this session, another that lives, or nobody. */
  get listener(): 'this' | 'other' | undefined {
    const listener = Atomics.load(this.#words, WORD.listener)
    if (listener === this.#session) return 'this'
    return this.#isAlive(listener) ? 'other' : undefined
  }

  /** Makes this session the listener, or nobody. */
  listen(isOn: boolean): void {
    Atomics.store(this.#words, WORD.listener, isOn ? this.#session : 0)
  }

  /** How often sessions of ours have let the VM go on: what had stopped before that has gone on since. */
  get resumes(): number {
    return Atomics.load(this.#words, WORD.resumes)
  }

  noteResume(): void {
    Atomics.add(this.#words, WORD.resumes, 1)
  }

  /** Whether the listener has answered all that has stopped the VM since it went on last. */
  get isAnswered(): boolean {
    return Atomics.load(this.#words, WORD.answered) === ((this.resumes + 1) | 0)
  }

  noteAnswered(): void {
    Atomics.store(this.#words, WORD.answered, this.resumes + 1)
  }

  /** Notes a breakpoint of the server's, so that it can be removed when this process was killed before it could. */
  noteBreakpoint(id: number, isSet: boolean): void {
    if (id < 0 || id >= BREAKPOINTS) return
    const [word, bit] = [WORD.breakpoints + (id >> 5), 1 << (id & 31)]
    if (isSet) Atomics.or(this.#words, word, bit)
    else Atomics.and(this.#words, word, ~bit)
  }

  /** The breakpoints that are noted. */
  breakpoints(): number[] {
    return Array.from({ length: BREAKPOINTS }, (_, id) => id).filter(
      (id) => (Atomics.load(this.#words, WORD.breakpoints + (id >> 5)) & (1 << (id & 31))) !== 0,
    )
  }

  /** Forgets what is noted of another server (a number that tells them apart): the VM was started again since. */
  forgetUnless(server: number): void {
    if (Atomics.exchange(this.#words, WORD.server, server | 0) === (server | 0)) return
    this.#words.fill(0, WORD.stopped)
    this.phase = PHASE.idle
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.holds = false
    if (this.listener === 'this') this.listen(false)
    this.#mapping.discard()
    closeSync(this.#fd)
  }

  #tryTake(): boolean {
    return Atomics.compareExchange(this.#words, WORD.owner, 0, this.#session) === 0
  }

  #wait(timeout: number): boolean {
    for (let spins = 0; spins < SPINS; spins++) if (this.#tryTake()) return true
    const deadline = performance.now() + timeout
    for (let naps = 1; ; naps++) {
      if (this.#tryTake()) return true
      const owner = Atomics.load(this.#words, WORD.owner)
      const isBroken = naps % NAPS_PER_QUESTION === 0 && owner !== this.#session && !this.#isAlive(owner)
      if (isBroken && Atomics.compareExchange(this.#words, WORD.owner, owner, this.#session) === owner) return true
      if (performance.now() >= deadline) return false
      sleepSync(NAP)
    }
  }

  #isAlive(session: number): boolean {
    return session >= 1 && session <= SESSIONS && (session === this.#session || isByteLocked(this.#fd, session - 1))
  }
}

/** The name of a VM may be as long as a file's name: a hash of it fits always. */
export function lockPath(directory: string, name: string): string {
  const key = createHash('sha256').update(name).digest('hex').slice(0, 32)
  return join(directory, `microvmi-fdp-${key}`)
}

function numberOfSession(fd: number, path: string): number {
  for (let session = 1; session <= SESSIONS; session++) if (tryLockByte(fd, session - 1)) return session
  throw new MicrovmiError('BUSY', `${path}: ${SESSIONS} sessions of this VM are open: close one`)
}

function openLockFile(path: string, channel: number): number {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW
  // Without O_CREAT first: kernels refuse it for files of others in a directory like /dev/shm (fs.protected_regular).
  const fd = openOr(path, flags) ?? openOr(path, flags | constants.O_CREAT | constants.O_EXCL) ?? openOr(path, flags)
  if (fd === undefined) throw new MicrovmiError('BUSY', `${path} comes and goes: is something cleaning it up?`)
  try {
    const found = fstatSync(fd)
    const owner = fstatSync(channel)
    const own = process.geteuid?.() ?? -1
    // Its owner can do us no more harm than with the channel, where that one is everybody's.
    const isTrusted = [own, owner.uid, 0].includes(found.uid) || (owner.mode & 0o002) !== 0
    if (!found.isFile() || !isTrusted) {
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
      throw new MicrovmiError('DENIED', `no right to use ${path}, which serialises sessions of this VM: remove it`, {
        cause: error,
      })
    }
    throw error
  }
}
