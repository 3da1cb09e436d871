import { MicrovmiError } from '@microvmi/core/driver'
import { Clock } from './clock.ts'
import { Machine } from './machine.ts'
import { type GuestOptions, type SettledOptions, settle } from './options.ts'

/** Numbers guests within this process. */
let made = 0

/** An open Vm's end here: who is told when the VM goes. */
export interface Connection {
  gone(error: MicrovmiError): void
}

/** Who pauses a guest for longer than a session. */
const outside = {}

/** A guest and what runs it: the mock's hypervisor. */
export class Host {
  readonly id: string
  readonly options: SettledOptions
  readonly machine: Machine
  readonly clock: Clock
  readonly connections = new Set<Connection>()
  /** The session that receives events: one at a time. */
  listener: Connection | undefined
  #gone: MicrovmiError | undefined
  #failure: { readonly error: MicrovmiError; calls: number } | undefined

  constructor(options: GuestOptions) {
    made += 1
    this.id = `mock-${made}`
    this.options = settle(options)
    this.machine = new Machine(this.options)
    this.clock = new Clock(this.machine, this.options.clock === 'real')
  }

  /** What every call of a session begins with: it may fail, or take its time. */
  exchange(): void {
    if (this.#gone) throw this.#gone
    if (this.options.latency > 0) {
      // A slow way in blocks, as a synchronous driver's wait does.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.options.latency)
    }
    const failure = this.#failure
    if (!failure) return
    failure.calls -= 1
    if (failure.calls <= 0) this.#failure = undefined
    throw failure.error
  }

  /** The next calls throw this. */
  fail(error: MicrovmiError, calls: number): void {
    this.#failure = calls > 0 ? { error, calls } : undefined
  }

  /** The VM ends under whoever has it open. */
  vanish(why: string): void {
    if (this.#gone) return
    const gone = new MicrovmiError('VM_GONE', `${this.options.name} has gone: ${why}`)
    this.#gone = gone
    this.machine.alive = false
    this.clock.stop()
    // Not within a call of theirs.
    setImmediate(() => {
      for (const connection of [...this.connections]) connection.gone(gone)
    })
  }

  get isGone(): boolean {
    return this.#gone !== undefined
  }

  /** @param by a session; without, whoever pauses for longer than one. */
  pause(by: object = outside): void {
    const { machine } = this
    const ran = machine.running
    machine.pausedBy.add(by)
    if (ran && !machine.running) machine.change('paused')
  }

  resume(by: object = outside): void {
    const { machine } = this
    const ran = machine.running
    machine.pausedBy.delete(by)
    if (!ran && machine.running) machine.change('resumed')
  }
}
