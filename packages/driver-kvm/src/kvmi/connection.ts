import { MicrovmiError } from '@microvmi/core/driver'
import type { Channel } from './channel.ts'
import { decodeEvent, type EventAnswer, encodeAnswer, type KvmiEvent } from './event-message.ts'
import type { Frame, Frames } from './frames.ts'
import type { Generation } from './generation.ts'
import { ERROR_LENGTH } from './layout.ts'
import { Message } from './message.ts'
import { Requests } from './requests.ts'

/** So many commands are on their way at most. */
const WINDOW = 64
/** Bytes of commands that are sent in one call. */
const OUTBOX = 65_536
/** A kernel that owes more answers than this will not give them any more. */
const MOST_ABANDONED = 4096

/** A command's answer: its error (0 or negative), and where what follows the error is, until the next command. */
export interface Answer {
  error: number
  /** The buffer that the answer is in. */
  readonly bytes: Buffer
  readonly view: DataView
  start: number
  length: number
}

/** Writes the command of an index into the message. */
export type Write = (message: Message, index: number) => void
/** Takes the answer of the command of an index. */
export type Take = (answer: Answer, index: number) => void

/**
 * The connection to the kernel behind one VM, once QEMU has handed it over. Commands are synchronous, many at a time
 * where that is faster, and are matched to their answers by number. Events that arrive meanwhile go to `onEvent`.
 */
export class Connection {
  readonly generation: Generation
  readonly requests: Requests
  readonly #channel: Channel
  readonly #frames: Frames
  readonly #timeout: number
  readonly #message = new Message()
  /** Commands that are written and not sent. */
  readonly #outbox = new Uint8Array(OUTBOX)
  readonly #answer: Answer
  /** Answers that nobody waits for any more: their commands have timed out. */
  readonly #abandoned = new Set<number>()
  /** By the command's place in the window: its id, or -1 when it was answered. */
  readonly #waiting = new Int32Array(WINDOW)
  #seq = 0
  #first = 0
  #sent = 0
  #filled = 0
  #outstanding = 0
  #take: Take | undefined
  #failure: MicrovmiError | undefined
  /** Takes an event. Called within commands: it queues. */
  onEvent: (event: KvmiEvent) => void = () => {}

  /** @param channel is this object's from now on; `frames` holds what has arrived already */
  constructor(channel: Channel, frames: Frames, generation: Generation, timeout: number, seq: number) {
    this.#channel = channel
    this.#frames = frames
    this.generation = generation
    this.requests = new Requests(generation)
    this.#timeout = timeout
    this.#seq = seq
    this.#answer = { error: 0, bytes: frames.bytes, view: frames.view, start: 0, length: 0 }
  }

  /** Whether the other side has hung up, or the connection was ended for a fault. Cheap. */
  get hasEnded(): boolean {
    return this.#failure !== undefined || this.#channel.hasEnded
  }

  /** A moment so far away as one exchange may take. */
  deadline(): number {
    return performance.now() + this.#timeout
  }

  /** One command. Its answer is valid until the next one. Throws `least` bytes missing as `PROTOCOL`. */
  ask(write: Write, least = 0): Answer {
    this.askAll(1, write, (answer) => {
      if (answer.error === 0 && answer.length < least) {
        throw this.#fault(`an answer of ${answer.length} bytes where ${least} are due`)
      }
    })
    return this.#answer
  }

  /**
   * `count` commands, up to 64 of them on their way at a time, so that their answers may come in any order. `take` is
   * called for each, and gives up all by throwing.
   */
  askAll(count: number, write: Write, take: Take): void {
    this.#check()
    if (this.#take) throw new MicrovmiError('BUSY', 'a KVMi command within the answer of another')
    let deadline = this.deadline()
    this.#take = take
    this.#first = 0
    this.#sent = 0
    this.#filled = 0
    this.#outstanding = 0
    const base = this.#seq + 1
    try {
      while (this.#first < count) {
        while (this.#sent < count && this.#sent - this.#first < WINDOW) this.#queue(write, deadline)
        this.#flush(deadline)
        this.#receive(deadline, base)
        deadline = this.deadline()
      }
    } catch (error) {
      this.#abandon(base)
      throw this.#ended(error)
    } finally {
      this.#take = undefined
    }
  }

  /** Lets the vCPU of an event go on. */
  answer(event: KvmiEvent, answer: EventAnswer): void {
    this.#check()
    encodeAnswer(this.generation, this.#message, event, answer)
    try {
      this.#channel.send(this.#message.bytes, this.deadline())
    } catch (error) {
      throw this.#ended(error)
    }
  }

  /** Takes what has arrived, without waiting. Throws `VM_GONE`, `PROTOCOL`. */
  poll(): void {
    this.#check()
    try {
      this.#dispatch(0)
      while (this.#add(this.#channel.receiveNow(this.#frames.room()))) this.#dispatch(0)
    } catch (error) {
      throw this.#ended(error)
    }
  }

  /** Waits for more to arrive, and takes it. Throws `TIMEOUT`, `VM_GONE`, `PROTOCOL`. */
  wait(deadline: number): void {
    this.#check()
    try {
      this.#add(this.#channel.receive(this.#frames.room(), deadline))
      this.#dispatch(0)
    } catch (error) {
      throw this.#ended(error)
    }
  }

  /** Has `callback` called on the event loop when something arrives, or when the other side hangs up. */
  watch(callback: () => void): void {
    this.#channel.watch(callback)
  }

  /** Whether waiting for events keeps the process alive. */
  keepAlive(alive: boolean): void {
    this.#channel.keepAlive(alive)
  }

  /** Ends it: the kernel lets go of the guest. `why` is what every later call says. */
  close(why: MicrovmiError): void {
    this.#failure ??= why
    this.#channel.close()
  }

  #queue(write: Write, deadline: number): void {
    const message = this.#message
    write(message, this.#sent)
    this.#seq = (this.#seq + 1) >>> 0
    message.seq = this.#seq
    this.#waiting[this.#sent % WINDOW] = message.id
    this.#sent += 1
    this.#outstanding += 1
    if (this.#filled + message.length > OUTBOX) this.#flush(deadline)
    message.copyTo(this.#outbox, this.#filled)
    this.#filled += message.length
  }

  #flush(deadline: number): void {
    const length = this.#filled
    if (length === 0) return
    // Whatever happens now, it is not sent twice.
    this.#filled = 0
    this.#channel.send(this.#outbox.subarray(0, length), deadline)
  }

  /** Takes what has arrived; waits until at least one command was answered. */
  #receive(deadline: number, base: number): void {
    const before = this.#outstanding
    this.#dispatch(base)
    while (this.#outstanding === before) {
      this.#add(this.#channel.receive(this.#frames.room(), deadline))
      this.#dispatch(base)
    }
    while (this.#first < this.#sent && this.#waiting[this.#first % WINDOW] === -1) this.#first += 1
  }

  #add(length: number): boolean {
    this.#frames.added(length)
    return length > 0
  }

  #dispatch(base: number): void {
    const { eventMessage, vmEventMessage } = this.generation
    for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
      const { id, seq, start, length } = frame
      if (id === eventMessage || id === vmEventMessage) {
        const body = Uint8Array.prototype.slice.call(this.#frames.bytes, start, start + length)
        this.onEvent(decodeEvent(this.generation, id, seq, body))
      } else if (!this.#abandoned.delete(seq)) {
        this.#answered(frame, base)
      }
    }
  }

  #answered({ id, seq, start, length }: Frame, base: number): void {
    const index = (seq - base) >>> 0
    const isWaiting = this.#take !== undefined && index >= this.#first && index < this.#sent
    if (!isWaiting || this.#waiting[index % WINDOW] !== id) {
      throw this.#fault(`an answer (message ${id}, number ${seq}) to nothing that was asked`)
    }
    if (length < ERROR_LENGTH) throw this.#fault(`an answer of ${length} bytes: it has ${ERROR_LENGTH} at least`)
    this.#waiting[index % WINDOW] = -1
    this.#outstanding -= 1
    const answer = this.#answer
    answer.error = answer.view.getInt32(start, true)
    answer.start = start + ERROR_LENGTH
    answer.length = length - ERROR_LENGTH
    this.#take?.(answer, index)
  }

  /** What is still on its way will be dropped when it comes. */
  #abandon(base: number): void {
    for (let index = this.#first; index < this.#sent; index++) {
      if (this.#waiting[index % WINDOW] !== -1) this.#abandoned.add((base + index) >>> 0)
    }
    if (this.#abandoned.size > MOST_ABANDONED) {
      this.close(new MicrovmiError('VM_GONE', `KVMi owes ${this.#abandoned.size} answers: the connection was ended`))
    }
  }

  #fault(what: string): MicrovmiError {
    return new MicrovmiError('PROTOCOL', `KVMi sent ${what}`)
  }

  /** After a fault of the other side there is no sense in its stream any more. */
  #ended(error: unknown): unknown {
    if (error instanceof MicrovmiError && (error.code === 'PROTOCOL' || error.code === 'VM_GONE')) {
      const why = `the connection was ended: ${error.message}`
      this.close(error.code === 'VM_GONE' ? error : new MicrovmiError('VM_GONE', why, { cause: error }))
    }
    return error
  }

  #check(): void {
    if (this.#failure) throw this.#failure
  }
}
