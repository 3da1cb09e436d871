import type { Connection } from './connection.ts'
import { kernelError } from './errors.ts'
import type { EventName } from './generation.ts'
import type { Message } from './message.ts'
import type { Vcpus } from './vcpus.ts'

/** Something that the kernel does for every vCPU from now on, or stops doing. */
interface Control {
  /** For counting and for messages. */
  readonly name: string
  write(message: Message, vcpu: number, enable: boolean): void
}

/** Turns events on and off, on every vCPU, also on those that come later. What is asked for twice is counted. */
export class Controls {
  readonly #connection: Connection
  readonly #vcpus: Vcpus
  readonly #on = new Map<string, { readonly control: Control; uses: number }>()
  /** By vCPU: why it executes one instruction at a time. */
  readonly #stepping = new Map<number, number>()

  constructor(connection: Connection, vcpus: Vcpus) {
    this.#connection = connection
    this.#vcpus = vcpus
  }

  /** Events of a name. */
  events(name: EventName): Control {
    const { requests } = this.#connection
    return { name: `${name} events`, write: (message, vcpu, on) => requests.controlEvents(message, vcpu, name, on) }
  }

  /** Writes to CR0, CR3 or CR4, beside the events themselves. */
  register(number: number): Control {
    const { requests } = this.#connection
    return {
      name: `writes to CR${number}`,
      write: (message, vcpu, on) => requests.controlCr(message, vcpu, number, on),
    }
  }

  /** Writes to an MSR, beside the events themselves. */
  msr(index: number): Control {
    const { requests } = this.#connection
    return {
      name: `writes to MSR 0x${index.toString(16)}`,
      write: (message, vcpu, on) => requests.controlMsr(message, vcpu, index, on),
    }
  }

  /** Turns these on, in order; on failure none is. */
  enable(controls: readonly Control[]): void {
    const done: Control[] = []
    try {
      for (const control of controls) {
        this.#enable(control)
        done.push(control)
      }
    } catch (error) {
      if (!this.#connection.hasEnded) this.disable(done)
      throw error
    }
  }

  /** Turns them off, in reverse. */
  disable(controls: readonly Control[]): void {
    for (const { name } of [...controls].reverse()) {
      const on = this.#on.get(name)
      if (!on) continue
      on.uses -= 1
      if (on.uses > 0) continue
      this.#on.delete(name)
      this.#tellAll(on.control, false)
    }
  }

  /** A vCPU was added. */
  enableFor(vcpu: number): void {
    for (const { control } of this.#on.values()) {
      const { error } = this.#connection.ask((message) => control.write(message, vcpu, true))
      if (error !== 0) throw kernelError(error, `${control.name} on vCPU ${vcpu}`)
    }
  }

  /** A vCPU executes one instruction at a time until `stopStepping`, called as often. */
  startStepping(vcpu: number): void {
    const uses = this.#stepping.get(vcpu) ?? 0
    if (uses === 0) {
      if (this.#connection.generation.singlestepIsEnabled) this.enable([this.events('singlestep')])
      this.#step(vcpu, true)
    }
    this.#stepping.set(vcpu, uses + 1)
  }

  stopStepping(vcpu: number): void {
    const uses = this.#stepping.get(vcpu) ?? 0
    if (uses > 1) {
      this.#stepping.set(vcpu, uses - 1)
      return
    }
    this.#stepping.delete(vcpu)
    this.#step(vcpu, false)
    if (this.#connection.generation.singlestepIsEnabled) this.disable([this.events('singlestep')])
  }

  #step(vcpu: number, enable: boolean): void {
    const { requests } = this.#connection
    const { error } = this.#connection.ask((message) => requests.controlSinglestep(message, vcpu, enable))
    if (error !== 0) throw kernelError(error, `stepping vCPU ${vcpu}`)
  }

  #enable(control: Control): void {
    const on = this.#on.get(control.name)
    if (on) {
      on.uses += 1
      return
    }
    const refused = this.#tellAll(control, true)
    if (refused !== 0) {
      this.#tellAll(control, false)
      throw kernelError(refused, `${control.name} of the guest`)
    }
    this.#on.set(control.name, { control, uses: 1 })
  }

  /** The first refusal, or 0. */
  #tellAll(control: Control, enable: boolean): number {
    let refused = 0
    this.#connection.askAll(
      this.#vcpus.count,
      (message, vcpu) => control.write(message, vcpu, enable),
      ({ error }) => {
        if (refused === 0) refused = error
      },
    )
    return refused
  }
}

export type { Control }
