import { MicrovmiError } from '@microvmi/core/driver'
import {
  closeDescriptor,
  ERRNO,
  errno,
  POLLHUP,
  POLLIN,
  POLLOUT,
  receive,
  send,
  type Watch,
  waitFor,
  watchReadable,
} from '../native.ts'

/** poll.h: the descriptor has failed, or is not open. */
const POLLERR = 8

/** A connected socket, QEMU's or the kernel's at the other end, with blocking calls that each have a deadline. */
export class Channel {
  readonly #what: string
  #fd: number | undefined
  #watch: Watch | undefined

  /** @param what whose connection it is, for messages */
  constructor(fd: number, what: string) {
    this.#fd = fd
    this.#what = what
  }

  get isOpen(): boolean {
    return this.#fd !== undefined
  }

  /** Whether the other side has hung up. Cheap: asks the kernel only. */
  get hasEnded(): boolean {
    return this.#fd === undefined || (waitFor(this.#fd, 0, 0) & (POLLHUP | POLLERR)) !== 0
  }

  /** Sends all of it by `deadline` (of `performance.now()`). */
  send(bytes: Uint8Array, deadline: number): void {
    let done = 0
    while (done < bytes.length) {
      const sent = send(this.#open(), done === 0 ? bytes : bytes.subarray(done))
      if (sent > 0) {
        done += sent
        continue
      }
      const failure = errno()
      if (failure === ERRNO.EAGAIN) {
        // Behind half a message nothing else could be said any more.
        if (!this.#isReady(POLLOUT, deadline)) throw done === 0 ? this.#late() : this.#gone()
      } else if (failure !== ERRNO.EINTR) {
        throw this.#gone()
      }
    }
  }

  /** Fills some of `into`, at least one byte, by `deadline`. */
  receive(into: Uint8Array, deadline: number): number {
    for (;;) {
      const length = this.receiveNow(into)
      if (length > 0) return length
      if (!this.#isReady(POLLIN, deadline)) throw this.#late()
    }
  }

  /** Puts what has arrived, perhaps nothing, into `into`. Throws `VM_GONE` at the end of the stream. */
  receiveNow(into: Uint8Array): number {
    const fd = this.#open()
    for (;;) {
      const length = receive(fd, into)
      if (length > 0) return length
      if (length === 0) throw this.#gone()
      const failure = errno()
      if (failure === ERRNO.EAGAIN) return 0
      if (failure !== ERRNO.EINTR) throw this.#gone()
    }
  }

  /** Calls back on the event loop when something arrives or the other side hangs up. */
  watch(callback: () => void): void {
    this.unwatch()
    this.#watch = watchReadable(this.#open(), callback)
  }

  unwatch(): void {
    this.#watch?.close()
    this.#watch = undefined
  }

  /** Whether the watch keeps the process alive. */
  keepAlive(alive: boolean): void {
    if (alive) this.#watch?.ref()
    else this.#watch?.unref()
  }

  close(): void {
    this.unwatch()
    if (this.#fd !== undefined) closeDescriptor(this.#fd)
    this.#fd = undefined
  }

  #open(): number {
    if (this.#fd === undefined) throw this.#gone()
    return this.#fd
  }

  /** Waits; false when the deadline has passed. */
  #isReady(events: number, deadline: number): boolean {
    const left = deadline - performance.now()
    return (left > 0 && waitFor(this.#open(), events, left) !== 0) || performance.now() < deadline
  }

  #late(): MicrovmiError {
    const why = 'KVMi did not answer in time. Is the VM stopped by someone else?'
    return new MicrovmiError('TIMEOUT', `${this.#what}: ${why}`)
  }

  #gone(): MicrovmiError {
    return new MicrovmiError(
      'VM_GONE',
      `${this.#what}: the connection was ended by the other side (a reset, a migration, a shutdown, or QEMU has ended)`,
    )
  }
}
