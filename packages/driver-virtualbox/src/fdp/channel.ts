import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { mapShared, type SharedMapping } from '../native.ts'
import { ByteWait } from './byte-wait.ts'
import { Canal, type Message, type Payload } from './canal.ts'
import { openChannelFile } from './channel-file.ts'
import { CHANNEL, type RequestLayout } from './layout.ts'
import { LockFile, PHASE } from './lock-file.ts'
import { FdpRequests } from './requests.ts'
import { findServer, isAlive, type ServerProcess } from './server-process.ts'

/** Milliseconds between two looks at whether the server's process is still there. */
const ALIVE_INTERVAL = 20
/** A lock that a dead process of ours may hold is broken when it was held this long: others hold it microseconds. */
const BREAK_AFTER = 250
/** Lengths of reads that bring request and reply together again: below a page, and above every reply that is not a read. */
const [FIRST_PROBE, LAST_PROBE] = [61, 4000]

/** One VM's channel: requests and replies through memory that is shared with the server in VirtualBox. */
export class FdpChannel {
  readonly name: string
  /** Milliseconds that one exchange may take. */
  readonly timeout: number
  /** The server's process, where it can be told. */
  readonly server: ServerProcess | undefined
  /** What sessions of ours know of each other. */
  readonly notes: LockFile
  readonly #mapping: SharedMapping
  readonly #bytes: Uint8Array
  readonly #wait: ByteWait
  readonly #toServer: Canal
  readonly #toClient: Canal
  readonly #probes: FdpRequests
  readonly #probed = new Uint8Array(LAST_PROBE + 1)
  #aliveAt = 0
  #gone: MicrovmiError | undefined

  constructor(directory: string, name: string, layout: RequestLayout, timeout: number) {
    this.name = name
    this.timeout = timeout
    this.#probes = new FdpRequests(layout)
    const fd = openChannelFile(directory, name)
    try {
      const search = findServer(directory, name)
      if (!search.found && search.certain) throw leftBehind(join(directory, name), name)
      this.server = search.found
      this.notes = new LockFile(directory, name, fd)
      try {
        this.#mapping = mapShared(fd, CHANNEL.length)
      } catch (error) {
        this.notes.close()
        throw error
      }
    } finally {
      closeSync(fd)
    }
    this.#bytes = this.#mapping.bytes
    this.#wait = new ByteWait(this.#bytes, timeout, () => this.checkAlive())
    this.#toServer = new Canal(this.#bytes, CHANNEL.toServer, this.#wait)
    this.#toClient = new Canal(this.#bytes, CHANNEL.toClient, this.#wait)
  }

  /**
   * Sends a request, with a payload, and waits for its reply, whose data go to `into`. Its length is `expected`, with
   * either status, or 1: else the server is not one, and it is `PROTOCOL`. Valid until the next exchange.
   */
  exchange(request: Uint8Array, expected: number, into: Uint8Array, payload?: Payload): Readonly<Message> {
    this.#enter()
    // False while the channel's lock is not ours to give back: not yet taken, or a reply may still come, which would be
    // taken for the next request's. Then what is left to do stays noted, for whoever of ours comes next.
    let isSettled = false
    try {
      this.#wait.begin()
      if (this.notes.phase !== PHASE.idle) this.#recover()
      this.#lock()
      isSettled = true
      if (!this.#toServer.put(request, payload)) throw this.#silent()
      this.notes.awaited = expected
      this.notes.phase = PHASE.awaiting
      isSettled = false
      const reply = this.#toClient.take(into, expected)
      if (!reply) throw this.#silent()
      isSettled = true
      if ((reply.length !== expected && reply.length !== 1) || reply.status > 1) throw this.#unexpected(reply, expected)
      return reply
    } finally {
      if (isSettled) this.#unlock()
      this.notes.drop()
    }
  }

  /** Does several exchanges with no other session of ours between them. */
  exclusively<T>(work: () => T): T {
    this.#enter()
    try {
      return work()
    } finally {
      this.notes.drop()
    }
  }

  /** Whether a vCPU has stopped at a breakpoint since this was asked last. */
  takeStateChanged(): boolean {
    return (
      Atomics.load(this.#bytes, CHANNEL.stateChanged) !== 0 &&
      Atomics.exchange(this.#bytes, CHANNEL.stateChanged, 0) !== 0
    )
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
    this.notes.close()
  }

  #enter(): void {
    this.checkAlive()
    if (this.notes.take(this.timeout)) return
    this.checkAlive()
    throw new MicrovmiError('TIMEOUT', `${this.name}: other sessions held the channel for ${this.timeout} ms`)
  }

  #lock(): void {
    while (this.#wait.until(CHANNEL.lock, false)) {
      this.notes.phase = PHASE.locking
      if (Atomics.exchange(this.#bytes, CHANNEL.lock, 1) === 0) {
        this.notes.phase = PHASE.sending
        return
      }
      this.notes.phase = PHASE.idle
    }
    throw new MicrovmiError(
      'BUSY',
      `${this.name}: another program has held the channel's lock for ${this.timeout} ms, or has died while it held ` +
        'it. End that program; when there is none, only a restart of the VM frees the channel',
    )
  }

  #unlock(): void {
    this.notes.phase = PHASE.done
    Atomics.store(this.#bytes, CHANNEL.lock, 0)
    this.notes.phase = PHASE.idle
  }

  /**
   * A process of ours died in the middle of an exchange, or its reply came too late: brings the channel to rest. Our
   * own lock is held, so what is noted is from one that has gone, and nobody else of ours is at work.
   */
  #recover(): void {
    const { phase } = this.notes
    // In this phase the lock may also be another program's, which will give it back.
    if (phase === PHASE.locking && this.#wait.untilWithin(CHANNEL.lock, false, BREAK_AFTER)) {
      this.notes.phase = PHASE.idle
      return
    }
    if (phase === PHASE.sending || phase === PHASE.awaiting) {
      this.#toServer.breakLock(BREAK_AFTER)
      this.#toClient.breakLock(BREAK_AFTER)
      this.#resynchronise()
    }
    this.#unlock()
  }

  /**
   * Replies carry no number. The one that may still come has a known length; a read of another length is asked for,
   * and what comes before its reply is thrown away.
   */
  #resynchronise(): void {
    // Each one's length is another than those of all that may still be under way.
    const { awaited } = this.notes
    const length = awaited >= FIRST_PROBE && awaited < LAST_PROBE ? awaited + 1 : FIRST_PROBE
    if (!this.#toServer.put(this.#probes.readPhysical(0, length))) throw this.#silent()
    this.notes.awaited = length
    this.notes.phase = PHASE.awaiting
    for (let seen = 0; seen !== length; ) {
      const reply = this.#toClient.take(this.#probed, length)
      if (!reply) throw this.#silent()
      seen = reply.length
    }
  }

  #unexpected({ length, status }: Message, expected: number): MicrovmiError {
    return new MicrovmiError(
      'PROTOCOL',
      `${this.name}: a reply of ${length} bytes with status ${status}, where ${expected} bytes were asked for: is this ` +
        'server of another build?',
    )
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

function leftBehind(path: string, name: string): MicrovmiError {
  return new MicrovmiError(
    'VM_GONE',
    `${name} has ended: ${path} and its CPU_ twin are what it left behind. Start it again`,
  )
}
