import { FAST_STEP, FLAG, SLOT } from './abi/vm-event.ts'
import type { XenViews } from './views.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF, _ON (domctl.h). */
const OFF = 0
const ON = 1

/** Lets no vCPU of a domain step any more, whatever a killed session has left. */
export function stopStepping(xen: Xen, domid: number, vcpus: number): void {
  for (let vcpu = 0; vcpu < vcpus; vcpu++) control(xen, domid, vcpu, OFF)
}

/** What is done around one instruction of a vCPU. */
export interface Step {
  /** Whether who listens to single steps hears of it. */
  readonly isReported: boolean
  /** Views of Xen's: the one to step in, and the one to go back to. */
  readonly view?: number | undefined
  readonly back?: number | undefined
  /** What is to be undone behind it. */
  readonly behind?: (() => void) | undefined
}

/**
 * Single steps of vCPUs, by Intel's monitor trap flag. A vCPU's is turned on and off by responses (which toggle it: what
 * it is now is kept here); no interrupt reaches a vCPU while it is on, so none is left on that nobody waits for.
 */
export class Stepping {
  readonly #xen: Xen
  readonly #domid: number
  readonly #views: XenViews
  /** vCPUs that Xen steps. */
  readonly #on = new Set<number>()
  /** What is behind the next step of a vCPU. */
  readonly #steps = new Map<number, Step>()
  /** vCPUs that step once and go back to a view, without a request; that they have done so is not told. */
  readonly #fast = new Map<number, number>()
  /** Whether every step of a vCPU is asked for. */
  #isAlways: (vcpu: number) => boolean = () => false

  constructor(xen: Xen, domid: number, views: XenViews) {
    this.#xen = xen
    this.#domid = domid
    this.#views = views
  }

  /** Whether a vCPU still has a step before it. */
  isBusy(): boolean {
    for (const [vcpu, back] of this.#fast) if (this.#views.viewOf(vcpu) === back) this.#fast.delete(vcpu)
    return this.#steps.size > 0 || this.#fast.size > 0
  }

  /** A request has come of a vCPU, in the view that it tells. */
  arrived(vcpu: number, view: number): void {
    if (this.#fast.get(vcpu) === view) this.#fast.delete(vcpu)
  }

  /** A vCPU has stepped; what was to be done is done, and returned. */
  stepped(vcpu: number): Step | undefined {
    const step = this.#steps.get(vcpu)
    this.#steps.delete(vcpu)
    step?.behind?.()
    return step
  }

  /** With this response the vCPU steps, and then goes back. */
  begin(slot: DataView, step: Step): void {
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    const back = this.#fast.get(vcpu) ?? step.back
    if (step.view !== undefined) setView(slot, step.view)
    const isAlone = !step.isReported && !step.behind && !this.#on.has(vcpu) && !this.#steps.has(vcpu)
    if (this.#xen.abi.hasFastStep && isAlone && back !== undefined && !this.#isAlways(vcpu)) {
      slot.setUint16(FAST_STEP.view, back, true)
      slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | FLAG.fastSingleStep, true)
      this.#fast.set(vcpu, back)
      return
    }
    // A fast one that is still to come would end without a request.
    if (this.#fast.delete(vcpu)) this.#control(vcpu, OFF)
    const before = this.#steps.get(vcpu)
    this.#steps.set(vcpu, {
      isReported: step.isReported || before?.isReported === true,
      back: before?.back ?? back,
      behind: both(before?.behind, step.behind),
    })
  }

  /** Lets a response turn stepping on or off, as is wanted now. */
  settle(slot: DataView): void {
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    if (this.#fast.has(vcpu)) return
    const isWanted = this.#steps.has(vcpu) || this.#isAlways(vcpu)
    if (isWanted === this.#on.has(vcpu)) return
    slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | FLAG.toggleSingleStep, true)
    if (isWanted) this.#on.add(vcpu)
    else this.#on.delete(vcpu)
  }

  /** From now on every step of these vCPUs is asked for. Responses must have reached Xen; the domain stands still. */
  always(isAlways: (vcpu: number) => boolean, vcpus: number): void {
    this.#isAlways = isAlways
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const isWanted = isAlways(vcpu) || this.#steps.has(vcpu)
      if (isWanted === this.#on.has(vcpu)) continue
      if (!isWanted) this.#turnOff(vcpu)
      else {
        this.#keepFast(vcpu)
        this.#control(vcpu, ON)
        this.#on.add(vcpu)
      }
    }
  }

  /** The view that a vCPU goes to behind the step that is before it. */
  backOf(vcpu: number): number | undefined {
    return this.#fast.get(vcpu) ?? this.#steps.get(vcpu)?.back
  }

  /** All vCPUs are about to be put in a view, and are to stay there; the domain stands still. */
  stay(): void {
    for (const [vcpu, back] of this.#fast) {
      // It makes its step in the view that it is put in.
      if (this.#views.viewOf(vcpu) !== back) this.#control(vcpu, OFF)
    }
    this.#fast.clear()
    for (const [vcpu, step] of this.#steps) this.#steps.set(vcpu, { ...step, back: undefined })
  }

  /** All stop stepping, wherever they are; the domain stands still. What was to be done behind a step is done now. */
  release(): void {
    this.#isAlways = () => false
    for (const vcpu of new Set([...this.#on, ...this.#fast.keys()])) this.#turnOff(vcpu)
    this.#fast.clear()
    const steps = [...this.#steps.values()]
    this.#steps.clear()
    for (const { behind } of steps) behind?.()
  }

  /** The domain has gone. */
  forget(): void {
    this.#on.clear()
    this.#fast.clear()
    this.#steps.clear()
    this.#isAlways = () => false
  }

  #turnOff(vcpu: number): void {
    this.#control(vcpu, OFF)
    this.#on.delete(vcpu)
  }

  /** A fast step that is still to come becomes one with a request. */
  #keepFast(vcpu: number): void {
    const back = this.#fast.get(vcpu)
    this.#fast.delete(vcpu)
    if (back === undefined || this.#views.viewOf(vcpu) === back) return
    this.#control(vcpu, OFF)
    this.#steps.set(vcpu, { isReported: false, back })
  }

  #control(vcpu: number, operation: number): void {
    control(this.#xen, this.#domid, vcpu, operation)
  }
}

function control(xen: Xen, domid: number, vcpu: number, operation: number): void {
  if (xen.libraries.xc.domain_debug_control(xen.handle, domid, operation, vcpu) >= 0) return
  throw failed('xc_domain_debug_control', `the steps of vCPU ${vcpu} of domain ${domid}`)
}

/** The vCPU goes on in a view of Xen's. */
export function setView(slot: DataView, view: number): void {
  slot.setUint16(SLOT.view, view, true)
  slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | FLAG.view, true)
}

function both(first: (() => void) | undefined, second: (() => void) | undefined): (() => void) | undefined {
  if (!first || !second) return first ?? second
  return () => {
    first()
    second()
  }
}
