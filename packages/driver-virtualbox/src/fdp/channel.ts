import { closeSync, constants, existsSync, fstatSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { type Canal, CHANNEL, type RequestLayout } from './layout.ts'
import { FdpLock, PHASE } from './lock.ts'
import { FdpRequests } from './requests.ts'
import { findServer, isAlive, type ServerProcess } from './server-process.ts'
import { mapShared, type SharedMapping } from '../native.ts'
import { sleepSync } from './sleep.ts'

/** Looks at a byte before the first sleep: about a millisecond, more than most replies take. */
const SPINS = 20_000
/** Looks between two looks at the clock. */
const SPINS_PER_CLOCK = 500
/** Milliseconds between two looks at whether the server's process is still there. */
const ALIVE_INTERVAL = 20
/** A lock that a dead process of ours may hold is broken when it was held this long: others hold it microseconds. */
const BREAK_AFTER = 250
/** What is awaited from a server that a dead client left in the middle of an exchange. */
const RESYNC_LIMIT = 2000
/** Lengths of reads that bring request and reply together again. */
const [FIRST_PROBE, LAST_PROBE] = [61, 4000]

/** A reply's status and the length of its data, which are in the caller's buffer. */
export interface Reply {
  length: number
  status: 0 | 1
}

/** One VM's channel: requests and replies through memory that is shared with the server in VirtualBox. */
export class FdpChannel {
  readonly name: string
  readonly timeout: number
  /** The server's process, where it can be told. */
  readonly server: ServerProcess | undefined
  readonly #mapping: SharedMapping
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #layout: RequestLayout
  readonly #lock: FdpLock
  readonly #eventLock: FdpLock
  readonly #reply: Reply = { length: 0, status: 0 }
  #lastReply: Uint8Array
  #aliveAt = 0
  #gone: MicrovmiError | undefined

  /** @param timeout milliseconds that one exchange may take */
  constructor(directory: string, name: string, layout: RequestLayout, timeout: number) {
    this.name = name
    this.timeout = timeout
    this.#layout = layout
    const fd = openChannel(join(directory, name), name)
    try {
      this.server = serverOf(directory, name)
      this.#lock = new FdpLock(directory, name, 'exchange', fd)
      try {
        this.#eventLock = new FdpLock(directory, name, 'events', fd)
        this.#mapping = mapShared(fd, CHANNEL.length)
      } catch (error) {
        this.#lock.close()
        throw error
      }
      if (this.server) {
        this.#forgetUnless(this.#lock, this.server.pid)
        this.#forgetUnless(this.#eventLock, this.server.pid)
      }
    } finally {
      closeSync(fd)
    }
    this.#bytes = this.#mapping.bytes
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length)
    this.#lastReply = this.#bytes.subarray(0, 0)
  }

  /**
   * Sends a request, and `data` behind it at `dataOffset`, and waits for its reply, which is copied into `into`.
   * `expected` is the length of a reply that succeeds; one byte is right too, for one that fails.
   */
  exchange(
    request: Uint8Array,
    expected: number,
    into: Uint8Array,
    data?: { readonly bytes: Uint8Array; readonly offset: number },
  ): Readonly<Reply> {
    const deadline = performance.now() + this.timeout
    this.checkAlive()
    this.#take(deadline)
    let inFlight = false
    try {
      this.#send(request, data, deadline)
      this.#lock.awaited = expected
      this.#lock.phase = PHASE.awaiting
      inFlight = true
      this.#receive(expected, into, deadline)
      inFlight = false
    } finally {
      // A reply that is still to come would be taken for the next request's: the lock stays, and what is left to do
      // stays noted, for whoever of ours comes next.
      if (!inFlight) this.#release()
      this.#lock.drop()
    }
    return this.#reply
  }

  /** Whether a vCPU has stopped at a breakpoint since this was asked last. */
  takeStateChanged(): boolean {
    return Atomics.load(this.#bytes, CHANNEL.stateChanged) !== 0 && this.#exchangeByte(CHANNEL.stateChanged, 0) !== 0
  }

  /** Becomes the one listener: there is one flag, which who sees it clears. Throws `BUSY`. */
  takeEvents(): void {
    if (this.#eventLock.tryTake()) return
    throw new MicrovmiError('BUSY', `${this.name}: another session listens to its events, and there can be one`)
  }

  dropEvents(): void {
    this.#eventLock.drop()
  }

  /** Notes that this session has paused the VM, or that it no longer has. */
  notePause(isOn: boolean): void {
    this.#lock.pauser = isOn ? process.pid : 0
  }

  /** Notes a breakpoint that this session has set, or has removed. */
  noteBreakpoint(id: number, isSet: boolean): void {
    this.#eventLock.noteBreakpoint(id, isSet)
  }

  /**
   * What processes of ours that were killed have left in the VM: breakpoints, where nobody listens any more, and a
   * pause whose process has ended. The notes are gone then.
   */
  takeLeftovers(): { readonly breakpoints: readonly number[]; readonly isPaused: boolean } {
    const { pauser } = this.#lock
    const isPaused = pauser !== 0 && !existsSync(`/proc/${pauser}`)
    if (isPaused) this.#lock.pauser = 0
    if (!this.#eventLock.tryTake()) return { breakpoints: [], isPaused }
    const breakpoints = this.#eventLock.breakpoints()
    for (const id of breakpoints) this.#eventLock.noteBreakpoint(id, false)
    this.#eventLock.drop()
    return { breakpoints, isPaused }
  }

  /** Throws `VM_GONE` when the server's process has ended. Looks again after some milliseconds only. */
  checkAlive(): void {
    if (this.#gone) throw this.#gone
    if (!this.server) return
    const now = performance.now()
    if (now - this.#aliveAt < ALIVE_INTERVAL) return
    this.#aliveAt = now
    if (isAlive(this.server)) return
    this.#gone = new MicrovmiError('VM_GONE', `${this.name}: VirtualBox (process ${this.server.pid}) has ended`)
    throw this.#gone
  }

  close(): void {
    this.#gone = new MicrovmiError('CLOSED', `the channel of ${this.name} is closed`)
    this.#mapping.discard()
    this.#eventLock.close()
    this.#lock.close()
  }

  #forgetUnless(lock: FdpLock, server: number): void {
    if (!lock.tryTake()) return
    lock.forgetUnless(server)
    lock.drop()
  }

  /** Takes our own lock, then the channel's. */
  #take(deadline: number): void {
    if (!this.#lock.take(deadline)) {
      throw new MicrovmiError('BUSY', `${this.name}: other clients held the channel for ${this.timeout} ms`)
    }
    try {
      if (this.#lock.phase !== PHASE.idle) this.#recover(deadline)
      this.#lockChannel(deadline)
    } catch (error) {
      this.#lock.drop()
      throw error
    }
  }

  #lockChannel(deadline: number): void {
    while (performance.now() < deadline) {
      if (!this.#awaitByte(CHANNEL.lock, 0, deadline)) break
      this.#lock.phase = PHASE.locking
      if (this.#exchangeByte(CHANNEL.lock, 1) === 0) {
        this.#lock.phase = PHASE.sending
        return
      }
      this.#lock.phase = PHASE.idle
    }
    throw new MicrovmiError(
      'BUSY',
      `${this.name}: another program has held the channel's lock for ${this.timeout} ms, or has died while it held ` +
        'it. End that program; when there is none, only a restart of the VM frees the channel',
    )
  }

  #release(): void {
    this.#lock.phase = PHASE.done
    Atomics.store(this.#bytes, CHANNEL.lock, 0)
    this.#lock.phase = PHASE.idle
  }

  #send(
    request: Uint8Array,
    data: { readonly bytes: Uint8Array; readonly offset: number } | undefined,
    deadline: number,
  ): void {
    const { toServer } = CHANNEL
    const length = Math.max(request.length, data ? data.offset + data.bytes.length : 0)
    for (;;) {
      this.#lockCanal(toServer, deadline)
      if (Atomics.load(this.#bytes, toServer.present) === 0) break
      Atomics.store(this.#bytes, toServer.lock, 0)
      if (!this.#awaitByte(toServer.present, 0, deadline)) throw this.#silent()
    }
    this.#bytes.set(request, toServer.data)
    if (data) this.#bytes.set(data.bytes, toServer.data + data.offset)
    this.#view.setUint32(toServer.size, length, true)
    this.#bytes[toServer.status] = 1
    Atomics.store(this.#bytes, toServer.present, 1)
    Atomics.store(this.#bytes, toServer.lock, 0)
  }

  #receive(expected: number, into: Uint8Array, deadline: number): void {
    const { toClient } = CHANNEL
    if (!this.#awaitByte(toClient.present, 1, deadline)) throw this.#silent()
    this.#lockCanal(toClient, deadline)
    const length = this.#view.getUint32(toClient.size, true)
    const status = this.#bytes[toClient.status]
    const fits = length === expected || length === 1
    if (fits) this.#copyReply(length, into)
    Atomics.store(this.#bytes, toClient.present, 0)
    Atomics.store(this.#bytes, toClient.lock, 0)
    if (!fits || (status !== 0 && status !== 1)) {
      this.#release()
      throw new MicrovmiError(
        'PROTOCOL',
        `${this.name}: a reply of ${length} bytes with status ${status}, where ${expected} bytes were asked for: is this ` +
          'server of another build?',
      )
    }
    this.#reply.length = length
    this.#reply.status = status
  }

  /** Most replies have the length of the one before: then nothing is allocated. */
  #copyReply(length: number, into: Uint8Array): void {
    const { data } = CHANNEL.toClient
    if (this.#lastReply.length !== length) this.#lastReply = this.#bytes.subarray(data, data + length)
    into.set(length === into.length ? this.#lastReply : this.#lastReply.subarray(0, into.length))
  }

  #lockCanal(canal: Canal, deadline: number): void {
    while (this.#exchangeByte(canal.lock, 1) !== 0) {
      if (!this.#awaitByte(canal.lock, 0, deadline)) throw this.#silent()
    }
  }

  /**
   * A process of ours died in the middle of an exchange, or its reply came too late: brings the channel to rest. Our
   * own lock is held, so what is noted in it is from one that has gone, and nobody else of ours is at work.
   */
  #recover(deadline: number): void {
    const { phase } = this.#lock
    const limit = Math.min(deadline, performance.now() + RESYNC_LIMIT)
    // In this phase the lock may also be another program's, which will give it back.
    if (phase === PHASE.locking && !this.#isHeldThroughout(CHANNEL.lock)) {
      this.#lock.phase = PHASE.idle
      return
    }
    if (phase === PHASE.sending || phase === PHASE.awaiting) {
      for (const canal of [CHANNEL.toServer, CHANNEL.toClient]) {
        if (this.#isHeldThroughout(canal.lock)) Atomics.store(this.#bytes, canal.lock, 0)
      }
      if (!this.#awaitByte(CHANNEL.toServer.present, 0, limit)) throw this.#silent()
      this.#resynchronise(limit)
    }
    this.#release()
  }

  /**
   * Replies carry no number. The one that may still come has a known length; a read of another length is asked for,
   * and what comes before its reply is thrown away.
   */
  #resynchronise(deadline: number): void {
    const { toClient } = CHANNEL
    // Each one's length is another than those of all that may still be under way.
    const { awaited } = this.#lock
    const length = awaited >= FIRST_PROBE && awaited < LAST_PROBE ? awaited + 1 : FIRST_PROBE
    this.#send(new FdpRequests(this.#layout).readPhysical(0, length), undefined, deadline)
    this.#lock.awaited = length
    this.#lock.phase = PHASE.awaiting
    for (;;) {
      if (!this.#awaitByte(toClient.present, 1, deadline)) throw this.#silent()
      const seen = this.#view.getUint32(toClient.size, true)
      Atomics.store(this.#bytes, toClient.present, 0)
      if (seen === length) return
    }
  }

  /** Whether a byte stays set for longer than any living holder keeps it so. */
  #isHeldThroughout(offset: number): boolean {
    return !this.#awaitByte(offset, 0, performance.now() + BREAK_AFTER)
  }

  /** Waits until a byte is zero, or is not; false at the deadline. Throws when the server's process has ended. */
  #awaitByte(offset: number, wanted: 0 | 1, deadline: number): boolean {
    const bytes = this.#bytes
    for (let spins = 0; ; spins++) {
      if ((Atomics.load(bytes, offset) === 0 ? 0 : 1) === wanted) return true
      if (spins % SPINS_PER_CLOCK !== SPINS_PER_CLOCK - 1) continue
      if (performance.now() >= deadline) return false
      if (spins < SPINS) continue
      this.checkAlive()
      sleepSync(0.05)
      spins -= SPINS_PER_CLOCK
    }
  }

  #exchangeByte(offset: number, value: 0 | 1): number {
    return Atomics.exchange(this.#bytes, offset, value)
  }

  #silent(): MicrovmiError {
    this.#aliveAt = 0
    this.checkAlive()
    return new MicrovmiError(
      'TIMEOUT',
      `${this.name}: the FDP server did not answer within ${this.timeout} ms` +
        (this.server ? '' : ': when the VM has ended, this channel is what it left behind'),
    )
  }
}

function openChannel(path: string, name: string): number {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MicrovmiError('DENIED', `no right to open ${path}: run as the user whose VM it is, or as root`, {
        cause: error,
      })
    }
    if (code === 'ENOENT' || code === 'ENAMETOOLONG' || code === 'ELOOP' || code === 'EISDIR' || code === 'ENXIO') {
      throw new MicrovmiError(
        'VM_NOT_FOUND',
        `no FDP channel of a VM '${name}': is it running, in a patched VirtualBox?`,
      )
    }
    throw error
  }
  const { size } = fstatSync(fd)
  if (size === CHANNEL.length) return fd
  closeSync(fd)
  throw new MicrovmiError('PROTOCOL', `${path} has ${size} bytes: an FDP channel has ${CHANNEL.length}`)
}

/** Throws `VM_GONE` for a channel that a VM left behind. */
function serverOf(directory: string, name: string): ServerProcess | undefined {
  const search = findServer(directory, name)
  if (!search.found && search.certain) {
    throw new MicrovmiError(
      'VM_GONE',
      `${name} has ended: ${join(directory, name)} and its CPU_ twin are what it left behind. Start it again`,
    )
  }
  return search.found
}
