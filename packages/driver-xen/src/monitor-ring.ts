import { MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'
import type { Abi } from './abi/versions.ts'
import { SLOT } from './abi/vm-event.ts'

// DEFINE_RING_TYPES (io/ring.h): four indices of 32 bits, private bytes, then the slots from offset 64.
const REQUESTS_PRODUCED = 0
const REQUEST_EVENT = 1
const RESPONSES_PRODUCED = 2
const RESPONSE_EVENT = 3
const SLOTS = 64

/**
 * The page through which Xen hands over requests and takes responses (io/ring.h). Its indices are another's: what does
 * not fit is an error, and nothing outside of the page is touched.
 */
export class MonitorRing {
  /** How many requests can wait. */
  readonly slots: number
  readonly #bytes: Uint8Array
  readonly #indices: Int32Array
  /** Each slot: making a view takes longer than copying one. */
  readonly #slots: readonly Uint8Array[]
  readonly #version: number
  #consumed = 0
  #answered = 0

  /** @param page 4096 bytes, of an own buffer or at a multiple of 4 */
  constructor(page: Uint8Array, { slotLength, vmEvent }: Abi) {
    this.#bytes = page
    this.#indices = new Int32Array(page.buffer, page.byteOffset, SLOTS / 4)
    this.#version = vmEvent
    // __RING_SIZE: the largest power of two that fits.
    this.slots = 2 ** Math.floor(Math.log2((PAGE_SIZE - SLOTS) / slotLength))
    const startOf = (index: number) => SLOTS + index * slotLength
    this.#slots = Array.from({ length: this.slots }, (_, index) => page.subarray(startOf(index), startOf(index + 1)))
  }

  /** Begins anew, as SHARED_RING_INIT does: the page still has the indices of who used it before. */
  initialise(): void {
    this.#bytes.fill(0)
    Atomics.store(this.#indices, REQUEST_EVENT, 1)
    Atomics.store(this.#indices, RESPONSE_EVENT, 1)
    this.#consumed = 0
    this.#answered = 0
  }

  /** Whether there is a request to take. */
  get hasRequest(): boolean {
    return Atomics.load(this.#indices, REQUESTS_PRODUCED) >>> 0 !== this.#consumed
  }

  /** Copies the next request into `slot`, if there is one. */
  take(slot: Uint8Array): boolean {
    const waiting = (Atomics.load(this.#indices, REQUESTS_PRODUCED) - this.#consumed) >>> 0
    if (waiting === 0) return false
    if (waiting > this.slots) {
      throw new MicrovmiError('PROTOCOL', `the monitor's ring has ${this.slots} slots, and ${waiting} requests in them`)
    }
    slot.set(this.#slotOf(this.#consumed))
    this.#consumed = (this.#consumed + 1) >>> 0
    const version = wordAt(slot, SLOT.version)
    if (version === this.#version) return true
    throw new MicrovmiError(
      'PROTOCOL',
      `a request of interface version ${version}, where ${this.#version} was agreed on`,
    )
  }

  /** Asks to be notified of the next request. False where one has come since: take it first. */
  sleep(): boolean {
    Atomics.store(this.#indices, REQUEST_EVENT, (this.#consumed + 1) | 0)
    return (Atomics.load(this.#indices, REQUESTS_PRODUCED) - this.#consumed) >>> 0 === 0
  }

  /** Puts a response where a request was taken from: there is always room for one. Xen is to be notified. */
  answer(slot: Uint8Array): void {
    this.#slotOf(this.#answered).set(slot)
    this.#answered = (this.#answered + 1) >>> 0
    Atomics.store(this.#indices, RESPONSES_PRODUCED, this.#answered | 0)
  }

  #slotOf(index: number): Uint8Array {
    const slot = this.#slots[index & (this.slots - 1)]
    if (!slot) throw new RangeError(`the ring has no slot ${index}`)
    return slot
  }
}

/** 32 bits, little endian. */
function wordAt(bytes: Uint8Array, offset: number): number {
  const byte = (index: number) => bytes[offset + index] ?? 0
  return (byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24)) >>> 0
}
