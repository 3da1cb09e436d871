import { isIP } from 'node:net'
import { MicrovmiError } from '@microvmi/core/driver'
import {
  closeDescriptor,
  connectError,
  connectTcp,
  ERRNO,
  errno,
  POLLIN,
  POLLOUT,
  receive,
  send,
  waitFor,
} from './native.ts'

const CHUNK = 65_536

/** A TCP connection with blocking calls, each with a deadline: a guest may stand still while its answer is awaited. */
export class TcpSocket {
  readonly #where: string
  readonly #chunk = new Uint8Array(CHUNK)
  #fd: number | undefined

  /** @param host an IP address; throws `VM_NOT_FOUND` when nothing listens there */
  constructor(host: string, port: number, deadline: number) {
    this.#where = `${host}:${port}`
    const connected = connectTcp(addressBytes(host), port)
    if ('errno' in connected) throw this.#refused(connected.errno)
    this.#fd = connected.fd
    try {
      this.#wait(POLLOUT, deadline)
      const failure = connectError(connected.fd)
      if (failure !== 0) throw this.#refused(failure)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Sends all of it by `deadline` (of `performance.now()`). */
  send(bytes: Uint8Array, deadline: number): void {
    for (let done = 0; done < bytes.length; ) {
      const sent = send(this.#open(), bytes.subarray(done))
      if (sent > 0) done += sent
      else this.#retry(POLLOUT, deadline)
    }
  }

  /** What has arrived, at least one byte, valid until the next call. */
  receive(deadline: number): Uint8Array {
    for (;;) {
      const length = receive(this.#open(), this.#chunk)
      if (length > 0) return this.#chunk.subarray(0, length)
      if (length === 0) throw this.#gone()
      this.#retry(POLLIN, deadline)
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeDescriptor(this.#fd)
    this.#fd = undefined
  }

  #open(): number {
    if (this.#fd === undefined) throw this.#gone()
    return this.#fd
  }

  /** After a call that has failed: waits where it would have blocked. */
  #retry(events: number, deadline: number): void {
    const failure = errno()
    if (failure === ERRNO.EAGAIN) this.#wait(events, deadline)
    else if (failure !== ERRNO.EINTR) throw this.#gone()
  }

  #wait(events: number, deadline: number): void {
    for (;;) {
      const left = deadline - performance.now()
      if (left > 0 && waitFor(this.#open(), events, left) !== 0) return
      if (left <= 0) throw new MicrovmiError('TIMEOUT', `the VM's debugger at ${this.#where} did not answer in time`)
    }
  }

  #gone(): MicrovmiError {
    return new MicrovmiError('VM_GONE', `the VM's debugger at ${this.#where} has closed the connection`)
  }

  #refused(failure: number): MicrovmiError {
    return new MicrovmiError('VM_NOT_FOUND', `nothing listens at ${this.#where} (errno ${failure})`, {
      cause: { call: 'connect', errno: failure },
    })
  }
}

/** The bytes of an IP address. */
export function addressBytes(host: string): Uint8Array {
  const version = isIP(host)
  if (version === 4) return Uint8Array.from(host.split('.').map(Number))
  if (version === 6) return sixteenBytes(host)
  throw new MicrovmiError('BAD_ARGUMENT', `'${host}' is no IP address`)
}

/** `::` stands for as many zeros as are missing (RFC 4291, section 2.2). */
function sixteenBytes(host: string): Uint8Array {
  const [head = '', tail] = host.split('::')
  const words = (part: string | undefined) => (part ? part.split(':').map((word) => Number(`0x${word}`)) : [])
  const [first, last] = [words(head), words(tail)]
  const middle = tail === undefined ? [] : new Array<number>(8 - first.length - last.length).fill(0)
  return Uint8Array.from([...first, ...middle, ...last].flatMap((word) => [word >> 8, word & 0xff]))
}
