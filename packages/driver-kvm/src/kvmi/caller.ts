import { MicrovmiError } from '@microvmi/core/driver'
import type { Channel } from './channel.ts'
import { Connection } from './connection.ts'
import { Frames } from './frames.ts'
import type { Generation } from './generation.ts'
import { encodeAnswerTo, type Hello, HelloReader } from './handshake.ts'
import { MESSAGE_LIMIT } from './layout.ts'
import { Message } from './message.ts'
import { Negotiation } from './negotiation.ts'

/** Milliseconds that a handshake may take: as long as QEMU gives us for our half (accel/kvm/vmi.c). */
const HANDSHAKE_TIME = 10_000
/** Small messages that fit any socket's buffer: this is never waited for in earnest. */
const SEND_TIME = 1000

/** One QEMU that has dialled in: its handshake, and then its connection until somebody opens it. */
export class Caller {
  readonly #channel: Channel
  readonly #secret: Uint8Array | undefined
  readonly #changed: () => void
  readonly #frames = new Frames()
  readonly #message = new Message()
  readonly #timer: NodeJS.Timeout
  readonly #hello = new HelloReader()
  readonly #piece = new Uint8Array(MESSAGE_LIMIT)
  #said: Hello | undefined
  #negotiation: Negotiation | undefined
  #generation: Generation | undefined
  #failure: MicrovmiError | undefined

  /**
   * @param channel is this object's from now on
   * @param changed called when it becomes ready, and when it fails
   */
  constructor(channel: Channel, secret: Uint8Array | undefined, changed: () => void) {
    this.#channel = channel
    this.#secret = secret
    this.#changed = changed
    this.#timer = setTimeout(() => {
      this.#fail(new MicrovmiError('TIMEOUT', `the handshake did not end within ${HANDSHAKE_TIME} ms`))
    }, HANDSHAKE_TIME).unref()
    channel.watch(() => this.#advance())
  }

  /** What QEMU said of its VM, once it did. */
  get hello(): Hello | undefined {
    return this.#said
  }

  /** Whether it can be opened. */
  get isReady(): boolean {
    return this.#generation !== undefined && this.#failure === undefined
  }

  /** Whether the handshake goes on. */
  get isPending(): boolean {
    return this.#generation === undefined && this.#failure === undefined
  }

  /** Why it cannot be opened. */
  get failure(): MicrovmiError | undefined {
    return this.#failure
  }

  /** The other side may have hung up without the event loop's noticing yet. */
  get hasEnded(): boolean {
    return this.#channel.hasEnded
  }

  /** Hands the connection over: this object is done with it. */
  connect(timeout: number): Connection {
    if (!this.#generation) throw new MicrovmiError('BUSY', 'the handshake of this VM goes on')
    clearTimeout(this.#timer)
    this.#channel.unwatch()
    const seq = this.#negotiation?.seq ?? 0
    return new Connection(this.#channel, this.#frames, this.#generation, timeout, seq)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#channel.close()
  }

  #advance(): void {
    try {
      if (!this.#said) this.#readHello()
      if (this.#said) this.#negotiate()
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#fail(this.#explained(error))
    }
  }

  #readHello(): void {
    while (!this.#said) {
      const most = Math.min(this.#hello.missing, this.#piece.length)
      const length = this.#channel.receiveNow(this.#piece.subarray(0, most))
      if (length === 0) return
      this.#said = this.#hello.take(this.#piece.subarray(0, length))
    }
    this.#channel.send(encodeAnswerTo(this.#secret), performance.now() + SEND_TIME)
    this.#negotiation = new Negotiation()
    this.#ask()
  }

  #negotiate(): void {
    const negotiation = this.#negotiation
    while (negotiation) {
      const length = this.#channel.receiveNow(this.#frames.room())
      if (length === 0) return
      this.#frames.added(length)
      for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
        if (this.#generation) throw new MicrovmiError('PROTOCOL', 'KVMi spoke without having been asked')
        this.#generation = negotiation.take(frame, this.#frames.view)
        if (!this.#generation) {
          this.#ask()
          continue
        }
        clearTimeout(this.#timer)
        this.#changed()
      }
    }
  }

  #ask(): void {
    this.#negotiation?.write(this.#message)
    this.#channel.send(this.#message.bytes, performance.now() + SEND_TIME)
  }

  /** QEMU says nothing when the cookie is wrong: it hangs up. */
  #explained(error: MicrovmiError): MicrovmiError {
    if (error.code !== 'VM_GONE' || !this.#said || this.#generation) return error
    const { name } = this.#said
    const secret = this.#secret ? 'is the secret the one of its key?' : 'does it have a key? Then give its secret'
    return new MicrovmiError('DENIED', `'${name}' hung up after our half of the handshake: ${secret}`, { cause: error })
  }

  #fail(error: MicrovmiError): void {
    if (this.#failure) {
      // It was listed with its reason, and has gone now.
      this.close()
      this.#changed()
      return
    }
    this.#failure = error
    // What speaks another generation stays connected, so that it can be listed with the reason.
    if (error.code !== 'UNSUPPORTED') this.close()
    this.#changed()
  }
}
