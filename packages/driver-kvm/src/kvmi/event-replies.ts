import { badArgument, type EventKind, type Injection, MicrovmiError, type Reply } from '@microvmi/core/driver'
import type { PageRights } from '@microvmi/page-rights'
import type { Breakpoints } from './breakpoints.ts'
import type { Connection } from './connection.ts'
import { kernelError } from './errors.ts'
import { type EventAnswer, type KvmiEvent, oldValue } from './event-message.ts'
import { breakpointAddress, faultFrame } from './kinds.ts'
import { EVENT, KVM_ERROR } from './layout.ts'
import type { KvmiRegisters } from './registers.ts'
import type { Aside, Stepper } from './stepper.ts'
import type { Vcpus } from './vcpus.ts'
import type { KvmiViews } from './views.ts'

/** `struct kvmi_event_pf_reply`: u64 ctx_addr, u32 ctx_size, 4 more, u8 ctx_data[256]. */
const MOST_DATA = 256

/** Milliseconds between two attempts to inject behind an earlier exception. */
const TRAP_TIME = 5

/** Kinds whose instruction the kernel ends itself, behind whatever was written to rip. */
const COMPLETED: ReadonlySet<EventKind> = new Set<EventKind>(['cr', 'msr', 'hypercall', 'descriptor'])

/** Answers events as replies say. */
export class EventReplies {
  readonly #connection: Connection
  readonly #vcpus: Vcpus
  readonly #registers: KvmiRegisters
  readonly #rights: PageRights
  readonly #views: KvmiViews
  readonly #stepper: Stepper
  readonly #breakpoints: Breakpoints

  constructor(parts: {
    readonly connection: Connection
    readonly vcpus: Vcpus
    readonly registers: KvmiRegisters
    readonly rights: PageRights
    readonly views: KvmiViews
    readonly stepper: Stepper
    readonly breakpoints: Breakpoints
  }) {
    this.#connection = parts.connection
    this.#vcpus = parts.vcpus
    this.#registers = parts.registers
    this.#rights = parts.rights
    this.#views = parts.views
    this.#stepper = parts.stepper
    this.#breakpoints = parts.breakpoints
  }

  /** The guest goes on as if unwatched. */
  proceed(event: KvmiEvent): void {
    if (event.name !== 'breakpoint') {
      this.#vcpus.answer(event)
      return
    }
    const physical = breakpointAddress(event)
    if (this.#breakpoints.has(physical)) this.#stepOver(event, physical, false)
    // The guest's own int3 is reinjected; one of ours that was taken out meanwhile is tried again.
    else this.#vcpus.answer(event, { action: this.#breakpoints.isGone(physical) ? 'retry' : 'continue' })
  }

  /** As a reply says; where it asks what cannot be, the guest proceeds and this throws. */
  reply(event: KvmiEvent, kind: EventKind, parts: Reply): void {
    if (!this.#vcpus.isWaiting(event)) return
    try {
      this.#check(event, kind, parts)
      this.#prepare(event, kind, parts)
    } catch (error) {
      if (!this.#connection.hasEnded) this.proceed(event)
      throw error
    }
    this.#answer(event, kind, parts)
  }

  #check(event: KvmiEvent, kind: EventKind, { deny, emulate, inject, registers, step, view }: Reply): void {
    if (deny && kind !== 'cr' && kind !== 'msr' && kind !== 'int3') throw cannot(`deny ${kind} events`)
    if (deny && event.name === 'xsetbv') throw cannot('deny writes to XCR0')
    if (emulate && kind !== 'memory') throw cannot(`emulate on ${kind} events`)
    if (typeof emulate === 'object') this.#checkEmulation(emulate)
    if (registers?.rip !== undefined && COMPLETED.has(kind)) {
      throw cannot(`change rip in a reply to ${kind} events: the kernel moves it behind the instruction itself`)
    }
    if (inject && inject.type !== 'exception') throw cannot(`inject an ${inject.type}: it injects exceptions`)
    if (view !== undefined) this.#views.check(view)
    if (typeof step === 'object') this.#views.check(step.view)
  }

  #checkEmulation(emulate: { readonly data: Uint8Array } | { readonly instruction: Uint8Array }): void {
    if ('instruction' in emulate) throw cannot('emulate other instructions')
    if (this.#connection.generation.pageFaultReplyLength === 0) throw cannot('emulate with data in this generation')
    if (emulate.data.length > MOST_DATA) throw badArgument(`at most ${MOST_DATA} bytes can be emulated`)
  }

  #prepare(event: KvmiEvent, kind: EventKind, { deny, registers, inject, view }: Reply): void {
    const { vcpu } = event
    let changes = registers ?? {}
    const skips = (deny && kind === 'int3') || (kind === 'cpuid' && registers !== undefined)
    if (skips && changes.rip === undefined) changes = { ...changes, rip: behind(event) }
    if (Object.keys(changes).length > 0) this.#registers.write(vcpu, changes)
    if (inject) this.inject(vcpu, inject)
    if (view !== undefined) this.#views.switchOne(view, vcpu)
  }

  #answer(event: KvmiEvent, kind: EventKind, parts: Reply): void {
    const { step, deny, value, registers, emulate, reinject } = parts
    const moved = registers?.rip !== undefined && registers.rip !== ripOf(event)
    const data = typeof emulate === 'object' && 'data' in emulate ? emulate.data : undefined
    const skipped = kind === 'cpuid' && registers !== undefined
    const action = moved || skipped || (deny && kind === 'int3') ? 'retry' : 'continue'
    const isWrite = event.name === 'cr' || event.name === 'msr'
    const written = deny ? oldValue(event) : value
    const answer: EventAnswer = {
      action,
      ...(isWrite && written !== undefined ? { value: written } : {}),
      ...(data ? { data } : {}),
    }
    const physical = event.name === 'breakpoint' ? breakpointAddress(event) : undefined
    if (kind === 'breakpoint' && physical !== undefined && !moved && !reinject) {
      this.#stepOver(event, physical, step !== undefined, step)
    } else if (step) {
      this.#step(event, moved ? 'retry' : action, answer, step)
    } else {
      this.#vcpus.answer(event, answer)
    }
  }

  /** An exception. KVM takes one at a time for each vCPU. */
  inject(vcpu: number, injection: Injection): void {
    if (injection.type !== 'exception') throw cannot(`inject an ${injection.type}: it injects exceptions`)
    const { vector, errorCode, cr2 = 0n } = injection
    const { requests } = this.#connection
    const deadline = this.#connection.deadline()
    for (;;) {
      const { error } = this.#connection.ask((message) => {
        requests.injectException(message, vcpu, vector, errorCode, cr2)
      })
      if (error === 0) return
      const isEarlier = -error === KVM_ERROR.EBUSY && !this.#vcpus.waitingIn(vcpu) && performance.now() < deadline
      if (!isEarlier) throw kernelError(error, `injecting exception ${vector} into vCPU ${vcpu}`)
      this.#awaitTrap()
    }
  }

  /** The one before is on its way: the vCPU tells when it has come, and that is answered at once. */
  #awaitTrap(): void {
    try {
      this.#connection.wait(performance.now() + TRAP_TIME)
    } catch (error) {
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
    }
  }

  #stepOver(event: KvmiEvent, physical: number, asked: boolean, step?: Reply['step']): void {
    const aside = this.#withView(event, this.#breakpoints.aside(physical), step)
    this.#stepper.begin({ event, answer: { action: 'retry' }, asked, aside })
  }

  #step(event: KvmiEvent, action: EventAnswer['action'], answer: EventAnswer, step: Reply['step']): void {
    const isFault = event.name === 'pageFault' && action === 'continue'
    // Emulating would execute the instruction in the kernel, and the step would be the next one.
    const relaxed = isFault ? this.#relaxed(event) : undefined
    const aside = this.#withView(event, relaxed, step)
    this.#stepper.begin({
      event,
      answer: relaxed ? { action: 'retry' } : answer,
      asked: true,
      ...(aside ? { aside } : {}),
    })
  }

  #relaxed(event: KvmiEvent): Aside {
    const { view, frame } = faultFrame(event)
    return {
      take: () => this.#rights.relax(view, frame),
      putBack: () => this.#rights.restore(view, frame),
    }
  }

  /** The same in another view, for a step that names one. */
  #withView(event: KvmiEvent, aside: Aside, step: Reply['step']): Aside
  #withView(event: KvmiEvent, aside: Aside | undefined, step: Reply['step']): Aside | undefined
  #withView(event: KvmiEvent, aside: Aside | undefined, step: Reply['step']): Aside | undefined {
    if (typeof step !== 'object') return aside
    const before = this.#views.of(event.vcpu)
    return {
      take: () => {
        aside?.take()
        this.#views.switchOne(step.view, event.vcpu)
      },
      putBack: () => {
        this.#views.switchOne(this.#views.has(before) ? before : 0, event.vcpu)
        aside?.putBack()
      },
    }
  }
}

function cannot(what: string): MicrovmiError {
  return new MicrovmiError('UNSUPPORTED', `KVMi cannot ${what}; the guest has proceeded`)
}

function ripOf({ view, start }: KvmiEvent): bigint {
  return view.getBigUint64(start + EVENT.regs + 128, true)
}

/** The address behind an int3 (u8 insn_len at 8) or a CPUID (u8 insn_length at 8). */
function behind(event: KvmiEvent): bigint {
  return BigInt.asUintN(64, ripOf(event) + BigInt(event.view.getUint8(event.specific + 8)))
}
