import type { ByteWait } from './byte-wait.ts'
import type { CanalPlace } from './layout.ts'

/** Data that follow a request in the message. */
export interface Payload {
  readonly bytes: Uint8Array
  /** From the start of the message: they may begin within the request's padding. */
  readonly offset: number
}

/** A reply as it lies in the canal. */
export interface Message {
  length: number
  status: number
}

/** One direction of the channel (FDP_SHM_CANAL): room for one message, guarded by a byte. */
export class Canal {
  readonly #bytes: Uint8Array
  readonly #size: DataView
  readonly #place: CanalPlace
  readonly #wait: ByteWait
  readonly #message: Message = { length: 0, status: 0 }
  #last: Uint8Array

  constructor(bytes: Uint8Array, place: CanalPlace, wait: ByteWait) {
    this.#bytes = bytes
    this.#place = place
    this.#wait = wait
    this.#size = new DataView(bytes.buffer, bytes.byteOffset + place.size, 4)
    this.#last = bytes.subarray(place.data, place.data)
  }

  /** Puts a message in, once the one before has been taken; false when it was not in time. */
  put(request: Uint8Array, payload?: Payload): boolean {
    const { data, present, status } = this.#place
    if (!this.#lockWhen(false)) return false
    this.#bytes.set(request, data)
    if (payload) this.#bytes.set(payload.bytes, data + payload.offset)
    this.#size.setUint32(0, request.length + (payload ? payload.bytes.length : 0), true)
    this.#bytes[status] = 1
    Atomics.store(this.#bytes, present, 1)
    this.#unlock()
    return true
  }

  /**
   * Takes the next message out: its data go to `into` when their length is what is expected, or 1. Undefined when none
   * came in time. The result is valid until the next call.
   */
  take(into: Uint8Array, expected: number): Readonly<Message> | undefined {
    const { present, status } = this.#place
    if (!this.#lockWhen(true)) return undefined
    const message = this.#message
    message.length = this.#size.getUint32(0, true)
    message.status = this.#bytes[status] ?? 0
    if (message.length === expected || message.length === 1) this.#copy(message.length, into)
    Atomics.store(this.#bytes, present, 0)
    this.#unlock()
    return message
  }

  /** Opens the canal's lock where it stays closed for `milliseconds`: nobody who lives keeps it that long. */
  breakLock(milliseconds: number): void {
    if (!this.#wait.untilWithin(this.#place.lock, false, milliseconds)) this.#unlock()
  }

  /** Most messages have the length of the one before: then nothing is allocated. */
  #copy(length: number, into: Uint8Array): void {
    const { data } = this.#place
    if (this.#last.length !== length) this.#last = this.#bytes.subarray(data, data + length)
    into.set(this.#last)
  }

  /** Locks the canal while there is a message in it, or none. */
  #lockWhen(isPresent: boolean): boolean {
    const { present } = this.#place
    for (;;) {
      if (!this.#wait.until(present, isPresent) || !this.#lock()) return false
      if ((Atomics.load(this.#bytes, present) !== 0) === isPresent) return true
      this.#unlock()
    }
  }

  #lock(): boolean {
    while (Atomics.exchange(this.#bytes, this.#place.lock, 1) !== 0) {
      if (!this.#wait.until(this.#place.lock, false)) return false
    }
    return true
  }

  #unlock(): void {
    Atomics.store(this.#bytes, this.#place.lock, 0)
  }
}
