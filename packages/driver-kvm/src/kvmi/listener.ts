import { MicrovmiError } from '@microvmi/core/driver'
import { type Watch, watchReadable } from '../native.ts'
import { Caller } from './caller.ts'
import { Channel } from './channel.ts'
import { type Address, addressName, type ListeningSocket, listenAt } from './listening-socket.ts'
import { accept } from './native.ts'

/** Handshakes at a time: a further caller takes the place of the oldest. */
const MOST_PENDING = 64
/** VMs at one socket. */
const MOST_CALLERS = 512
/** Milliseconds that callers nobody has opened are kept after a listing, for the open that follows it. */
const LINGER = 30_000

/** All that listen in this process, by address: they are shared. */
const listeners = new Map<string, Listener>()

/** One socket that QEMUs dial in at, and the VMs behind it. It listens while somebody uses it. */
export class Listener {
  readonly address: Address
  readonly #socket: ListeningSocket
  readonly #watch: Watch
  readonly #secret: Uint8Array | undefined
  readonly #callers = new Set<Caller>()
  /** Those of open VMs. */
  readonly #taken = new Set<Caller>()
  readonly #waiting = new Set<() => void>()
  #users = 0
  /** Until when VMs that nobody has opened are kept. */
  #kept = 0
  #linger: NodeJS.Timeout | undefined
  #lastFailure: MicrovmiError | undefined

  /** The listener at an address; a new one where there is none. Call `leave` when done. Throws as `listenAt`. */
  static use(address: Address, secret: Uint8Array | undefined): Listener {
    const name = addressName(address)
    let listener = listeners.get(name)
    if (!listener) {
      listener = new Listener(address, secret)
      listeners.set(name, listener)
    } else if (!sameSecret(listener.#secret, secret)) {
      throw new MicrovmiError('BUSY', `this process listens at ${name} with another secret: close those VMs first`)
    }
    return listener.#enter()
  }

  /** Those that listen already, but for some, each to be left again. */
  static useOthers(than: readonly Listener[]): Listener[] {
    return [...listeners.values()].filter((one) => !than.includes(one)).map((listener) => listener.#enter())
  }

  constructor(address: Address, secret: Uint8Array | undefined) {
    this.address = address
    this.#secret = secret
    this.#socket = listenAt(address)
    this.#watch = watchReadable(this.#socket.fd, () => this.#accept())
  }

  /** Where it listens, for messages. */
  get name(): string {
    return addressName(this.address)
  }

  /** What went wrong with the last caller that did not become a VM. */
  get lastFailure(): MicrovmiError | undefined {
    return this.#lastFailure
  }

  /** VMs that can be opened, and those that say why not. */
  get callers(): readonly Caller[] {
    this.#forgetEnded()
    return [...this.#callers].filter(({ isPending }) => !isPending)
  }

  /** VMs that this process has open. */
  get taken(): readonly Caller[] {
    return [...this.#taken]
  }

  /** Waits until a caller comes or goes, or so many milliseconds; what keeps it waiting keeps the process alive. */
  change(milliseconds: number): { readonly done: Promise<void>; cancel(): void } {
    let settle = () => {}
    const done = new Promise<void>((resolve) => {
      settle = resolve
    })
    const timer = setTimeout(() => settle(), milliseconds)
    this.#waiting.add(settle)
    const cancel = () => {
      clearTimeout(timer)
      this.#waiting.delete(settle)
      settle()
    }
    return { done: done.finally(cancel), cancel }
  }

  /** A caller becomes an open VM: it is this listener's user until `give` back. */
  take(caller: Caller): void {
    this.#callers.delete(caller)
    this.#taken.add(caller)
    this.#enter()
  }

  /** The VM was closed. */
  give(caller: Caller): void {
    if (this.#taken.delete(caller)) this.leave()
  }

  /** @param linger keeps the VMs that have dialled in for a while: after a listing somebody may open one */
  leave(linger = false): void {
    this.#users -= 1
    if (linger) this.#kept = performance.now() + LINGER
    if (this.#users > 0) return
    const left = this.#kept - performance.now()
    if (left <= 0 || this.callers.length === 0) this.#close()
    else this.#linger = setTimeout(() => this.#close(), left).unref()
  }

  #enter(): this {
    this.#users += 1
    clearTimeout(this.#linger)
    return this
  }

  #accept(): void {
    for (;;) {
      const accepted = accept(this.#socket.fd)
      if ('errno' in accepted) return
      this.#makeRoom()
      const caller: Caller = new Caller(new Channel(accepted.fd, this.name), this.#secret, () => this.#changed(caller))
      this.#callers.add(caller)
    }
  }

  #makeRoom(): void {
    const pending = [...this.#callers].filter(({ isPending }) => isPending)
    const [oldest] = pending.length >= MOST_PENDING ? pending : this.#callers
    if (oldest && (pending.length >= MOST_PENDING || this.#callers.size >= MOST_CALLERS)) this.#forget(oldest)
  }

  #changed(caller: Caller): void {
    const { failure } = caller
    if (failure) this.#lastFailure = failure
    if (failure && failure.code !== 'UNSUPPORTED') this.#forget(caller)
    for (const wake of [...this.#waiting]) wake()
  }

  #forgetEnded(): void {
    for (const caller of this.#callers) if (!caller.isPending && caller.hasEnded) this.#forget(caller)
  }

  #forget(caller: Caller): void {
    caller.close()
    this.#callers.delete(caller)
  }

  #close(): void {
    clearTimeout(this.#linger)
    listeners.delete(this.name)
    this.#watch.close()
    this.#socket.close()
    for (const caller of [...this.#callers]) this.#forget(caller)
  }
}

function sameSecret(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  return one === other || (one !== undefined && other !== undefined && Buffer.compare(one, other) === 0)
}
