import { type BackendEvent, MicrovmiError } from '@microvmi/core/driver'
import { FLAG, REASON, SLOT } from './abi/vm-event.ts'
import type { Monitor } from './monitor.ts'
import { type Step, type Stepping, setView } from './stepping.ts'

/** A request of Xen's, which is to be answered once. */
export class Slot extends DataView<ArrayBuffer> {
  /** All of it. */
  readonly bytes: Uint8Array
  /** What core was told of it, until that is answered. */
  event: BackendEvent | undefined
  /** The step that was made, where it tells of one. */
  step: Step | undefined

  constructor(length: number) {
    super(new ArrayBuffer(length))
    this.bytes = new Uint8Array(this.buffer)
  }
}

/** Requests on their way from the ring to their answers. Slots are used again. */
export class RequestQueue {
  readonly #slotLength: number
  readonly #stepping: Stepping
  readonly #askVcpus: () => number
  readonly #waiting: Slot[] = []
  readonly #spare: Slot[] = []
  #vcpus = 0

  /** @param vcpus asks how many the domain has */
  constructor(slotLength: number, stepping: Stepping, vcpus: () => number) {
    this.#slotLength = slotLength
    this.#stepping = stepping
    this.#askVcpus = vcpus
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  /** How many vCPUs there were when last asked. */
  get vcpus(): number {
    return this.#vcpus
  }

  /** Takes all that is in the ring, until Xen will notify of the next. */
  drain(monitor: Monitor): void {
    do this.takeAll(monitor)
    while (!monitor.sleep())
  }

  /** Takes all that is in the ring now. */
  takeAll(monitor: Monitor): void {
    for (;;) {
      const slot = this.#spare.pop() ?? new Slot(this.#slotLength)
      if (!monitor.take(slot.bytes)) {
        this.#spare.push(slot)
        return
      }
      this.#took(slot)
      this.#waiting.push(slot)
    }
  }

  /** The next one. */
  shift(): Slot | undefined {
    return this.#waiting.shift()
  }

  /** Leaves those that are wanted, and gives the others to `drop`. */
  sift(isWanted: (slot: Slot) => boolean, drop: (slot: Slot) => void): void {
    for (const slot of this.#waiting.splice(0)) {
      if (isWanted(slot)) this.#waiting.push(slot)
      else drop(slot)
    }
  }

  /** Hands a slot, made a response, to Xen; `undefined` where there is no ring any more. */
  answer(slot: Slot, monitor: Monitor | undefined): void {
    const flags = slot.getUint32(SLOT.flags, true)
    const { step } = slot
    slot.step = undefined
    if (step?.back !== undefined && (flags & FLAG.view) === 0) setView(slot, step.back)
    if ((flags & FLAG.vcpuPaused) !== 0) this.#stepping.settle(slot)
    monitor?.answer(slot.bytes)
    this.#spare.push(slot)
  }

  /** All vCPUs are put in a view of Xen's. */
  moved(view: number): void {
    for (const slot of this.#waiting) slot.setUint16(SLOT.view, view, true)
  }

  /** Forgets them all: nobody will answer. */
  clear(): void {
    this.#waiting.length = 0
  }

  #took(slot: Slot): void {
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    this.#checkVcpu(vcpu)
    this.#stepping.arrived(vcpu, slot.getUint16(SLOT.view, true))
    if (slot.getUint32(SLOT.reason, true) !== REASON.singleStep) return
    const step = this.#stepping.stepped(vcpu)
    if (!step) return
    slot.step = step
    // Behind the step the vCPU is to be where it was before.
    if (step.back !== undefined) slot.setUint16(SLOT.view, step.back, true)
  }

  #checkVcpu(vcpu: number): void {
    if (vcpu < this.#vcpus) return
    this.#vcpus = this.#askVcpus()
    if (vcpu < this.#vcpus) return
    throw new MicrovmiError('PROTOCOL', `a request of vCPU ${vcpu}, where the domain has ${this.#vcpus}`)
  }
}
