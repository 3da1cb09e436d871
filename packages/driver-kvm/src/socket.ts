import { MicrovmiError } from '@microvmi/core/driver'
import {
  closeDescriptor,
  connectUnix,
  ERRNO,
  errno,
  POLLHUP,
  POLLIN,
  POLLOUT,
  peerPid,
  receive,
  send,
  type Watch,
  waitFor,
  watchReadable,
} from './native.ts'

const CHUNK = 65_536

/** A unix socket with blocking calls, each with a deadline: a guest stands still while its answer is awaited. */
export class Socket {
  readonly path: string
  readonly #what: string
  readonly #chunk = new Uint8Array(CHUNK)
  #fd: number | undefined
  #watch: Watch | undefined

  /** @param what the other side, for messages */
  constructor(path: string, what: string) {
    this.path = path
    this.#what = what
    const connected = connectUnix(path)
    if ('errno' in connected) throw connectFailure(path, what, connected.errno)
    this.#fd = connected.fd
  }

  /** The process at the other end. */
  get peer(): number | undefined {
    return this.#fd === undefined ? undefined : peerPid(this.#fd)
  }

  /** Sends all of it by `deadline` (of `performance.now()`). */
  send(bytes: Uint8Array, deadline: number): void {
    let done = 0
    while (done < bytes.length) {
      const fd = this.#open()
      const sent = send(fd, bytes.subarray(done))
      if (sent > 0) {
        done += sent
        continue
      }
      const failure = errno()
      if (failure === ERRNO.EAGAIN) this.#wait(POLLOUT, deadline)
      else if (failure !== ERRNO.EINTR) throw this.#gone()
    }
  }

  /** What has arrived, at least one byte, valid until the next call; waits until `deadline`. */
  receive(deadline: number): Uint8Array {
    for (;;) {
      const bytes = this.receiveNow()
      if (bytes.length > 0) return bytes
      this.#wait(POLLIN, deadline)
    }
  }

  /** What has arrived, perhaps nothing, valid until the next call. Throws `VM_GONE` at the end of the stream. */
  receiveNow(): Uint8Array {
    const fd = this.#open()
    for (;;) {
      const length = receive(fd, this.#chunk)
      if (length > 0) return this.#chunk.subarray(0, length)
      if (length === 0) throw this.#gone()
      const failure = errno()
      if (failure === ERRNO.EAGAIN) return this.#chunk.subarray(0, 0)
      if (failure !== ERRNO.EINTR) throw this.#gone()
    }
  }

  /** Whether the other side has hung up. Cheap: asks the kernel only. */
  get hasEnded(): boolean {
    return this.#fd === undefined || (waitFor(this.#fd, 0, 0) & POLLHUP) !== 0
  }

  /** Calls back on the event loop when something arrives or the other side hangs up. */
  watch(callback: () => void): void {
    this.#watch ??= watchReadable(this.#open(), callback)
  }

  /** Whether the watch keeps the process alive. */
  keepAlive(alive: boolean): void {
    if (alive) this.#watch?.ref()
    else this.#watch?.unref()
  }

  close(): void {
    this.#watch?.close()
    this.#watch = undefined
    if (this.#fd !== undefined) closeDescriptor(this.#fd)
    this.#fd = undefined
  }

  #open(): number {
    if (this.#fd === undefined) throw this.#gone()
    return this.#fd
  }

  #wait(events: number, deadline: number): void {
    const left = deadline - performance.now()
    if (left <= 0 || waitFor(this.#open(), events, left) === 0) {
      if (performance.now() < deadline) return
      throw new MicrovmiError('TIMEOUT', `${this.#what} at ${this.path} did not answer in time: is it stopped?`)
    }
  }

  #gone(): MicrovmiError {
    return new MicrovmiError('VM_GONE', `${this.#what} at ${this.path} has closed the connection`)
  }
}

function connectFailure(path: string, what: string, failure: number): MicrovmiError {
  const cause = { call: 'connect', errno: failure }
  switch (failure) {
    case ERRNO.ENOENT:
    case ERRNO.ECONNREFUSED:
      return new MicrovmiError('VM_NOT_FOUND', `nothing listens at ${path}: is the VM running?`, { cause })
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return new MicrovmiError('DENIED', `no right to connect to ${path}: run as its owner or as root`, { cause })
    case ERRNO.EAGAIN:
      return new MicrovmiError('BUSY', `${what} at ${path} has a client already, and others wait`, { cause })
    default:
      return new MicrovmiError('HYPERVISOR', `cannot connect to ${path} (errno ${failure})`, { cause })
  }
}
