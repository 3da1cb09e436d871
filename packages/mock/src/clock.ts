import { badArgument, MicrovmiError } from '@microvmi/core/driver'
import type { Machine } from './machine.ts'

/** Milliseconds between two looks at the time, and the longest time that is made up for. */
const PERIOD = 4
const LONGEST_GAP = 20
/** Instructions, of all vCPUs, between two turns of the event loop. */
const BETWEEN_LOOPS = 50_000

/** Makes the guest go on: when it is told to, or as time passes. */
export class Clock {
  readonly #machine: Machine
  readonly #real: boolean
  #timer: NodeJS.Timeout | undefined
  #immediate: NodeJS.Immediate | undefined
  #keepsAlive = false
  #last = 0
  #waiting: (() => void)[] = []

  constructor(machine: Machine, real: boolean) {
    this.#machine = machine
    this.#real = real
    machine.onWake = () => this.wake()
    if (real) this.#schedule()
  }

  /** Each vCPU executes so many instructions now, or as many as it can. Returns how many all of them did. */
  runNow(instructions: number): number {
    this.#check(instructions)
    const before = this.#executed()
    this.#setTargets(instructions)
    while (this.#machine.turn(Number.POSITIVE_INFINITY));
    for (const { vcpu } of this.#machine.processors) vcpu.target = Math.min(vcpu.target, vcpu.clock)
    return this.#executed() - before
  }

  /** Settles once each vCPU has executed so many instructions more; events are answered meanwhile. */
  async run(instructions: number, timeout: number): Promise<void> {
    this.#check(instructions)
    const machine = this.#machine
    const { processors } = machine
    const goals = processors.map(({ vcpu }) => vcpu.clock + instructions)
    if (!this.#real) this.#setTargets(instructions)
    const deadline = performance.now() + timeout
    for (;;) {
      const more = !this.#real && machine.turn(BETWEEN_LOOPS)
      const done = processors.every(({ vcpu }, index) => vcpu.clock >= (goals[index] ?? 0))
      // A guest that ended or began again does not get there.
      if (done || !machine.alive || machine.processors !== processors) break
      const left = deadline - performance.now()
      if (left <= 0) throw this.#late(timeout)
      await (more ? eventLoop() : this.#change(left))
    }
    // Loops over events receive what was delivered last.
    await eventLoop()
  }

  /** Something can go on: an event was answered, a pause has ended. */
  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
    this.#immediate ??= setImmediate(() => {
      this.#immediate = undefined
      if (this.#real) this.#catchUp()
      else this.#machine.deliver()
    })
  }

  /** Whether a real clock keeps the process alive. */
  keepAlive(on: boolean): void {
    this.#keepsAlive = on
    if (on) this.#timer?.ref()
    else this.#timer?.unref()
  }

  stop(): void {
    clearTimeout(this.#timer)
    clearImmediate(this.#immediate)
    this.#timer = undefined
    this.#machine.onWake = () => {}
  }

  #check(instructions: number): void {
    if (!Number.isSafeInteger(instructions) || instructions < 0) {
      throw badArgument(`a number of instructions is a whole number, not ${String(instructions)}`)
    }
    if (this.#machine.delivering) {
      throw new MicrovmiError('BUSY', 'a handler runs within the guest: let it return, then the guest goes on')
    }
  }

  #setTargets(instructions: number): void {
    for (const { vcpu } of this.#machine.processors) vcpu.target = Math.max(vcpu.target, vcpu.clock) + instructions
  }

  #executed(): number {
    return this.#machine.processors.reduce((sum, { vcpu }) => sum + vcpu.clock - vcpu.idle, 0)
  }

  /** Settles at the next change, or when the time is up. */
  async #change(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#real ? Math.min(milliseconds, PERIOD) : milliseconds)
      this.#waiting.push(() => {
        clearTimeout(timer)
        // The answer comes within a turn of the event loop, whose end others wait for, too.
        setImmediate(resolve)
      })
    })
  }

  #late(timeout: number): MicrovmiError {
    const { held, running } = this.#machine
    const why = held.map(({ vcpu, kind }) => `vcpu ${vcpu} waits for the answer to its ${kind} event`)
    if (!running) why.push('the guest is paused')
    return new MicrovmiError('TIMEOUT', `the guest did not get there within ${timeout} ms: ${why.join(', ') || 'slow'}`)
  }

  #schedule(): void {
    this.#last = performance.now()
    this.#timer = setTimeout(() => {
      this.#pass()
      this.#catchUp()
      this.#schedule()
    }, PERIOD)
    if (!this.#keepsAlive) this.#timer.unref()
  }

  /** Time has passed: how far may each vCPU be now? One that was held does not make up for it. */
  #pass(): void {
    const elapsed = Math.min(performance.now() - this.#last, LONGEST_GAP)
    const instructions = Math.round((elapsed * this.#machine.options.speed) / 1000)
    if (!this.#machine.running) return
    for (const { vcpu } of this.#machine.processors) {
      vcpu.target = Math.min(vcpu.target + instructions, vcpu.clock + 2 * instructions)
    }
  }

  #catchUp(): void {
    const more = this.#machine.turn(BETWEEN_LOOPS)
    this.#machine.deliver()
    if (more) this.wake()
  }
}

/** Settles after the others that wait now have had their turn. */
function eventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
