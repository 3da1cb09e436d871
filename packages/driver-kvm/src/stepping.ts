import type { QemuRunState } from './run-state.ts'
import type { StopReply } from './stop-reply.ts'
import type { Debugger } from './watchers/watcher.ts'

/** Milliseconds for an instruction. One that waits for an interrupt does not end: interrupts are kept away. */
const STEP_TIME = 100
/** The same while every vCPU steps in turn: one that waits gets its interrupt at its next turn. */
const TURN_TIME = 20
/**
 * After so many steps an interrupt may come in. Timers go by the host's time: let in at once, a guest that is stepped
 * would be in its timer's handler for ever.
 */
const STEPS_PER_INTERRUPT = 4096
/** How often a step is tried that another vCPU's late stop has cut off. */
const STEP_TRIES = 4
const INT3 = Uint8Array.of(0xcc)

/** Single instructions of one vCPU, while the others stand still. */
export class Stepping {
  readonly #run: QemuRunState
  readonly #debugging: Debugger
  /** Unknown at first: the stub keeps it from one connection to the next. */
  #takesInterrupts: boolean | undefined
  #turn = 0
  /** Of each vCPU, since it could take an interrupt. */
  readonly #steps: number[] = []

  constructor(run: QemuRunState, debugging: Debugger) {
    this.#run = run
    this.#debugging = debugging
  }

  /** The instruction at `rip`, whatever breakpoints are there. */
  step(vcpu: number, rip: bigint): StopReply {
    this.letInterruptsIn(false)
    const { points, onKvm } = this.#debugging
    // Under emulation a step is blind to breakpoints; on KVM it would meet the same one again.
    const out = onKvm ? points.at(rip) : []
    for (const point of out) points.takeOut(this.#debugging, point)
    try {
      return this.#step(vcpu, rip)
    } finally {
      for (const point of out) points.putBack(this.#debugging, point)
    }
  }

  /** An int3 in place of the instruction at `rip`. */
  stepInt3(vcpu: number, rip: bigint): StopReply {
    const { gdb, layout, code, points } = this.#debugging
    this.letInterruptsIn(false)
    gdb.select(vcpu)
    const out = points.at(rip)
    for (const point of out) points.takeOut(this.#debugging, point)
    try {
      const original = code.read(layout.registers(gdb.readAll()), rip, 1)
      const { cr3 } = layout.registers(gdb.readAll())
      gdb.writeMemory(rip, INT3)
      try {
        return this.#step(vcpu, rip)
      } finally {
        gdb.select(vcpu)
        code.inAddressSpace(this.#debugging, cr3, () => gdb.writeMemory(rip, original))
      }
    } finally {
      for (const point of out) points.putBack(this.#debugging, point)
    }
  }

  /** One instruction of the vCPU whose turn it is; `undefined`: it waits for an interrupt. */
  stepNext(): StopReply | undefined {
    const { gdb, vcpuCount } = this.#debugging
    const vcpu = this.#turn++ % vcpuCount
    const steps = (this.#steps[vcpu] ?? 0) + 1
    const isDue = steps >= STEPS_PER_INTERRUPT
    this.letInterruptsIn(isDue)
    const reply = this.#run.step(gdb, vcpu, TURN_TIME)
    this.#steps[vcpu] = !reply ? STEPS_PER_INTERRUPT : isDue ? 0 : steps
    return reply
  }

  letInterruptsIn(during: boolean): void {
    if (this.#takesInterrupts === during) return
    this.#debugging.gdb.letInterruptsIn(during)
    this.#takesInterrupts = during
  }

  #step(vcpu: number, rip: bigint): StopReply {
    const { gdb, vcpuCount, layout } = this.#debugging
    const plain = { vcpu, isTrap: true, watch: undefined }
    for (let tries = 0; ; tries++) {
      const reply = this.#run.step(gdb, vcpu, STEP_TIME)
      if (!reply) return plain
      // With one vCPU there is no other's stop that could come between.
      if (vcpuCount === 1 || reply.watch) return reply
      if (reply.vcpu !== vcpu) gdb.select(vcpu)
      if (tries === STEP_TRIES || layout.word(gdb.readAll(), 'rip') !== rip) return plain
    }
  }
}
