import type { Connection } from './connection.ts'
import type { Controls } from './controls.ts'
import type { EventAnswer, KvmiEvent } from './event-message.ts'
import type { Vcpus } from './vcpus.ts'

/** One instruction that a vCPU is to execute behind its event. */
export interface Step {
  readonly event: KvmiEvent
  readonly answer: EventAnswer
  /** Whether the app wants to know when it is done. */
  readonly asked: boolean
  /** What is put aside for this instruction; all other vCPUs stand still meanwhile. */
  readonly aside?: Aside
}

/** Something that must not be there while one instruction is executed. */
export interface Aside {
  take(): void
  putBack(): void
}

/** Lets vCPUs execute single instructions. Of those that put something aside, one at a time. */
export class Stepper {
  readonly #connection: Connection
  readonly #vcpus: Vcpus
  readonly #controls: Controls
  readonly #active = new Map<number, Step>()
  readonly #waiting: Step[] = []

  constructor(connection: Connection, vcpus: Vcpus, controls: Controls) {
    this.#connection = connection
    this.#vcpus = vcpus
    this.#controls = controls
  }

  /** Whether a step is on its way or waits for its turn. */
  get isBusy(): boolean {
    return this.#active.size > 0
  }

  begin(step: Step): void {
    if (step.aside && [...this.#active.values()].some(({ aside }) => aside !== undefined)) this.#waiting.push(step)
    else this.#start(step)
  }

  /** A vCPU has executed one instruction. Returns the step that this was the end of, if it was one. */
  end(vcpu: number): Step | undefined {
    const step = this.#active.get(vcpu)
    if (!step) return undefined
    this.#finish(step)
    const next = this.#waiting.shift()
    if (next) this.#start(next)
    return step
  }

  /** Waits until nothing is on its way any more; `handle` takes what arrives meanwhile. Throws `TIMEOUT`. */
  settle(handle: () => void): void {
    const deadline = this.#connection.deadline()
    handle()
    while (this.isBusy) {
      this.#connection.wait(deadline)
      handle()
    }
  }

  #start(step: Step): void {
    const { event, aside, answer } = step
    this.#active.set(event.vcpu, step)
    try {
      if (aside) this.#vcpus.runAlone(event.vcpu)
      this.#controls.startStepping(event.vcpu)
      aside?.take()
    } catch (error) {
      this.#active.delete(event.vcpu)
      if (!this.#connection.hasEnded) {
        if (aside) this.#vcpus.runTogether()
        this.#vcpus.answer(event)
      }
      throw error
    }
    this.#vcpus.answer(event, answer)
  }

  #finish(step: Step): void {
    this.#active.delete(step.event.vcpu)
    step.aside?.putBack()
    this.#controls.stopStepping(step.event.vcpu)
    if (step.aside) this.#vcpus.runTogether()
  }
}
