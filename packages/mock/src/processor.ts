import { type Injection, pageFrame } from '@microvmi/core/driver'
import { DR6_STEP, debugException, steps, tellHits, tellStep } from './aftermath.ts'
import { Code } from './code.ts'
import { BREAKPOINT, DOUBLE_FAULT, type Exception, Fault, HELD, NON_MASKABLE, TIMER } from './exceptions.ts'
import { execute } from './execute.ts'
import { LONGEST } from './instructions.ts'
import { deliver } from './interrupts.ts'
import { Mmu } from './mmu.ts'
import { canonical, uncanonical } from './page-tables.ts'
import type { Platform } from './platform.ts'
import { executeSystem } from './system.ts'
import { INTERRUPTS, RESUME, TRAP, type Vcpu } from './vcpu.ts'

const PAGE = 4096

/** Runs one vCPU. */
export class Processor {
  readonly vcpu: Vcpu
  readonly mmu: Mmu
  readonly platform: Platform
  /** Draws the time from one tick of the timer to the next. */
  readonly #slice: () => number
  readonly #code: Code

  constructor(vcpu: Vcpu, platform: Platform, slice: () => number) {
    this.vcpu = vcpu
    this.platform = platform
    this.mmu = new Mmu(vcpu, platform)
    this.#code = new Code(vcpu, this.mmu, platform)
    this.#slice = slice
  }

  /** Lets the vCPU go on until its clock is `until`, or it has to wait. */
  run(until: number): void {
    const { vcpu } = this
    while (vcpu.stop === undefined && this.platform.alive && (vcpu.clock < until || vcpu.after.length > 0)) {
      try {
        this.#advance(until)
      } catch (signal) {
        if (signal === HELD) return
        if (!(signal instanceof Fault)) throw signal
        this.#fault(signal)
      }
    }
  }

  #advance(until: number): void {
    const { vcpu } = this
    while (vcpu.clock < until || vcpu.after.length > 0) {
      if (vcpu.clock >= vcpu.nextTick) this.#tick()
      const next = Math.min(until, vcpu.nextTick)
      if (vcpu.attention) {
        this.#carefully(next)
      } else if (vcpu.halted) {
        this.#idle(next)
      } else {
        while (vcpu.clock < next && !vcpu.attention && !vcpu.halted) {
          this.#instruction()
          vcpu.clock += 1
        }
        if (vcpu.hits.length > 0) tellHits(this)
      }
    }
  }

  #idle(until: number): void {
    const { vcpu } = this
    vcpu.idle += until - vcpu.clock
    vcpu.clock = until
  }

  #tick(): void {
    const { vcpu } = this
    vcpu.nextTick += this.#slice()
    this.interrupt(TIMER)
  }

  /** A device asks for an interrupt. */
  interrupt(vector: number): void {
    const { interrupts } = this.vcpu
    if (!interrupts.includes(vector)) interrupts.push(vector)
    this.vcpu.attention = true
  }

  /** One thing at a time: an event that is due, an exception on its way, or one instruction. */
  #carefully(until: number): void {
    const { vcpu } = this
    if (vcpu.delivering) {
      this.#deliver(vcpu.delivering)
      return
    }
    const raise = vcpu.after.shift()
    if (raise) {
      raise()
    } else if (this.#nextInterruption()) {
      return
    } else if (vcpu.halted) {
      this.#idle(Math.max(until, vcpu.clock))
    } else {
      const { flags } = vcpu
      this.#instruction()
      if ((flags & RESUME) !== 0) vcpu.flags &= ~RESUME
      this.retired((flags & TRAP) !== 0)
    }
    this.settle()
  }

  /** Whether an exception or interrupt comes before the next instruction. */
  #nextInterruption(): boolean {
    const { vcpu } = this
    const enabled = (vcpu.flags & INTERRUPTS) !== 0
    const deliverable = vcpu.injections.findIndex(({ type }) => type !== 'interrupt' || enabled)
    const [injection] = deliverable < 0 ? [] : vcpu.injections.splice(deliverable, 1)
    if (injection) {
      vcpu.delivering = injected(injection)
    } else if (vcpu.pass || vcpu.step) {
      // An instruction that was let through comes first: its pass is not for a handler.
      return false
    } else if (vcpu.nonMaskable) {
      vcpu.nonMaskable = false
      this.raise(NON_MASKABLE)
    } else {
      const vector = enabled ? vcpu.interrupts.shift() : undefined
      if (vector !== undefined) this.raise(vector)
    }
    return vcpu.delivering !== undefined
  }

  /** An exception or interrupt comes to the vCPU, rip being where its handler returns to. */
  raise(vector: number): void {
    this.vcpu.delivering = { vector, errorCode: undefined, cr2: undefined, fault: false, reported: false }
    this.vcpu.attention = true
  }

  #fault({ vector, errorCode, address }: Fault): void {
    const { vcpu, platform } = this
    vcpu.hits.length = 0
    vcpu.pass = undefined
    vcpu.clock += 1
    vcpu.attention = true
    const during = vcpu.delivering
    if (during?.vector === DOUBLE_FAULT) {
      vcpu.delivering = undefined
      platform.crash(vcpu)
      return
    }
    vcpu.delivering = during
      ? { vector: DOUBLE_FAULT, errorCode: 0, cr2: undefined, fault: true, reported: false }
      : { vector, errorCode, cr2: address, fault: true, reported: false }
  }

  #deliver(exception: Exception): void {
    const { vcpu, platform } = this
    const { vector, errorCode, cr2, reported } = exception
    if (!reported) {
      const fields = { vector, errorCode, cr2: cr2 === undefined ? undefined : canonical(cr2) }
      const occurrence = { kind: 'interrupt', fields } as const
      platform.note(vcpu, occurrence)
      vcpu.delivering = { ...exception, reported: true }
      const armed = platform.watches.matching('interrupt', (one) => one.vector === undefined || one.vector === vector)
      if (armed.length > 0) {
        platform.hold(vcpu, occurrence, armed, 'complete', (parts) => {
          if (!parts.deny) return
          vcpu.delivering = undefined
          if (exception.fault) this.skip()
        })
      }
    }
    deliver(this, exception)
    vcpu.delivering = undefined
    vcpu.pass = undefined
    vcpu.clock += 1
    if (vcpu.hits.length > 0) tellHits(this)
    if (exception.fault) tellStep(this)
    this.settle()
  }

  #instruction(): void {
    const { vcpu, mmu } = this
    const offset = vcpu.rip & 0xfff
    const inPlace = vcpu.pass === undefined && (vcpu.flags & RESUME) === 0 && offset <= PAGE - LONGEST
    const code = inPlace ? mmu.code(vcpu.rip).view : this.#code.copy()
    const at = inPlace ? offset : 0
    if (!execute(vcpu, mmu, code, at)) executeSystem(this, code, at)
  }

  /**
   * At an int3 that may be a breakpoint of ours: stops there, or, when it is for another address space, executes the
   * guest's instruction under it. False when it is none of ours.
   */
  meetsBreakpoint(): boolean {
    const { vcpu, platform } = this
    const armed = vcpu.pastBreakpoints ? undefined : this.#code.breakpoints()
    if (!armed) return false
    const occurrence = { kind: 'breakpoint', fields: { address: canonical(vcpu.rip) } } as const
    if (armed.length > 0) {
      platform.hold(vcpu, occurrence, armed, 'repeat', (parts) => {
        if (parts.reinject) {
          vcpu.rip += 1
          this.raise(BREAKPOINT)
        } else {
          vcpu.passing().breakpoint = true
        }
      })
    }
    const { pass } = vcpu
    vcpu.pass = undefined
    vcpu.pass = { ...vcpu.passing(), ...pass, breakpoint: true }
    try {
      this.#instruction()
    } finally {
      vcpu.pass = pass
    }
    return true
  }

  /** An instruction is done: what has to be told of it, and what it was let do ends. */
  retired(trapped: boolean): void {
    const { vcpu } = this
    vcpu.clock += 1
    vcpu.pass = undefined
    if (vcpu.hits.length > 0) tellHits(this)
    tellStep(this)
    if (trapped) debugException(this, DR6_STEP)
    this.settle()
  }

  /** Whether the next instruction needs care. */
  settle(): void {
    const { vcpu } = this
    vcpu.attention =
      vcpu.delivering !== undefined ||
      vcpu.after.length > 0 ||
      vcpu.injections.length > 0 ||
      vcpu.nonMaskable ||
      (vcpu.interrupts.length > 0 && (vcpu.flags & INTERRUPTS) !== 0) ||
      vcpu.pass !== undefined ||
      vcpu.step !== undefined ||
      (vcpu.flags & (TRAP | RESUME)) !== 0 ||
      (this.platform.watches.of('singlestep')?.some(({ request }) => steps(request, vcpu.number, false)) ?? false)
  }

  /** Goes on behind the instruction at rip, or without the exception that is on its way. */
  skip(): void {
    const { vcpu, mmu } = this
    if (vcpu.delivering) {
      vcpu.delivering = undefined
      return
    }
    vcpu.pass = undefined
    vcpu.rip += this.#code.length()
    vcpu.clock += 1
    mmu.setUser(vcpu.privilege === 3)
  }

  setView(view: number): void {
    if (this.vcpu.view === view) return
    this.vcpu.view = view
    this.mmu.flush()
  }

  /** CR3 was written. */
  setAddressSpace(cr3: bigint): void {
    this.vcpu.cr3 = cr3
    this.vcpu.root = pageFrame(cr3)
    this.mmu.flush()
  }

  /** Registers were changed from outside. */
  resync(): void {
    this.setAddressSpace(this.vcpu.cr3)
    this.mmu.setUser(this.vcpu.privilege === 3)
    this.vcpu.attention = true
  }
}

function injected(injection: Injection): Exception {
  const { type } = injection
  const vector = type === 'nmi' ? NON_MASKABLE : injection.vector
  const errorCode = type === 'exception' ? injection.errorCode : undefined
  const cr2 = type === 'exception' && injection.cr2 !== undefined ? uncanonical(injection.cr2) : undefined
  return { vector, errorCode, cr2, fault: false, reported: true }
}
