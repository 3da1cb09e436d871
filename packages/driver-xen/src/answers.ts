import {
  type BackendEvent,
  type EventKind,
  MicrovmiError,
  PAGE_SIZE,
  type RegisterBackend,
  type Reply,
} from '@microvmi/core/driver'
import type { PageRights } from '@microvmi/page-rights'
import type { Abi } from './abi/versions.ts'
import { CPUID, pagingRegistersOf, REASON, ripOf, SLOT } from './abi/vm-event.ts'
import type { Breakpoints } from './breakpoints.ts'
import { type Injector, TRAP, type Trap } from './injection.ts'
import {
  checkParts,
  emulate,
  emulateWithoutWrites,
  leaveOut,
  proceed,
  setRegisters,
  splitChanges,
  wantedValue,
} from './replies.ts'
import { DEBUG_LENGTH, faultFrame, physicalOf } from './requests.ts'
import { type Stepping, setView } from './stepping.ts'
import { XenViews } from './views.ts'

/** What answers are made of. */
export interface AnswerParts {
  readonly abi: Abi
  readonly registers: Required<Pick<RegisterBackend, 'read' | 'write'>>
  readonly breakpoints: Breakpoints
  readonly injector: Injector
  readonly stepping: Stepping
  readonly rights: PageRights
  readonly views: XenViews
  /** Whether vCPUs can be stepped. */
  readonly canStep: boolean
}

/**
 * Kinds that are reported before anything has happened. At the others Xen goes on before it stops the vCPU: what comes
 * with the request are registers of before, and rip in a response would have the instruction executed once more.
 */
export const IS_AHEAD: ReadonlySet<EventKind> = new Set<EventKind>([
  ...(['breakpoint', 'int3', 'debug', 'descriptor', 'memory', 'singlestep', 'cpuid', 'io'] as const),
])

/** Makes a request's slot its response. */
export class Answers {
  readonly #parts: AnswerParts
  readonly #isHeard: (vcpu: number) => boolean

  /** @param isHeard whether somebody listens to the steps that replies ask for */
  constructor(parts: AnswerParts, isHeard: (vcpu: number) => boolean) {
    this.#parts = parts
    this.#isHeard = isHeard
  }

  /** The guest goes on as if unwatched. */
  proceed(slot: DataView): void {
    proceed(slot)
    this.#default(slot)
  }

  /** As a reply asks. Throws what cannot be: the guest goes on as if unwatched then. */
  reply(event: BackendEvent, slot: DataView, parts: Reply): void {
    if (isEmpty(parts)) {
      this.proceed(slot)
      return
    }
    try {
      checkParts(event, parts)
      this.#check(parts)
      proceed(slot)
      this.#apply(event, slot, parts)
    } catch (error) {
      this.proceed(slot)
      throw error
    }
  }

  #default(slot: DataView): void {
    const { breakpoints } = this.#parts
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    switch (slot.getUint32(SLOT.reason, true)) {
      case REASON.descriptor:
      case REASON.io:
        emulate(slot, true)
        return
      case REASON.debugException:
        this.#deliver(vcpu, this.#debugTrap(slot))
        return
      case REASON.memoryAccess:
        this.#letThrough(slot, false)
        return
      case REASON.cpuid:
        // Xen has filled in what the guest is to see, and has left rip where it was (hvm_vmexit_cpuid()).
        setRegisters(slot, { rip: this.#behindCpuid(slot) }, this.#parts.abi)
        return
      case REASON.breakpoint: {
        const physical = this.#shownAt(slot)
        if (breakpoints.has(physical)) this.#stepOver(slot)
        // Where neither is there, ours was taken out meanwhile: the guest executes what it has.
        else if (breakpoints.isGuests(physical)) this.#deliver(vcpu, this.#int3Trap(slot))
      }
    }
  }

  #apply(event: BackendEvent, slot: DataView, parts: Reply): void {
    const { abi, registers, injector } = this.#parts
    const { vcpu, kind } = event
    const { inSlot, others } = this.#changesOf(event, parts)
    if (parts.inject !== undefined) injector.inject(vcpu, parts.inject)
    if (parts.reinject === true) {
      injector.trap(vcpu, kind === 'debug' ? this.#debugTrap(slot) : this.#int3Trap(slot))
    }
    const isElsewhere = parts.reinject === true || parts.inject !== undefined || parts.registers?.rip !== undefined
    // A response has room for registers, or for the instruction under a breakpoint of ours.
    const isFull = kind === 'breakpoint' && !isElsewhere && !isAsked(parts.step) && !isEmulation(parts)
    const direct = isFull ? { ...others, ...inSlot } : others
    if (Object.keys(direct).length > 0) registers.write(vcpu, direct)
    if (parts.view !== undefined) setView(slot, this.#parts.views.numberOf(parts.view))
    if (kind === 'cr' && (parts.deny === true || parts.value !== undefined)) leaveOut(slot)
    if (isEmulation(parts)) emulate(slot, parts.emulate)
    else if (parts.deny === true) this.#deny(event, slot, parts)
    else if (!isElsewhere) this.#goOn(event, slot, parts)
    if (isAsked(parts.step)) this.#step(event, slot, parts, isElsewhere)
    if (!isFull && Object.keys(inSlot).length > 0) setRegisters(slot, inSlot, abi)
  }

  /** What is done of a reply's registers with the response, and what by itself. */
  #changesOf(event: BackendEvent, parts: Reply) {
    const changes = parts.registers ?? {}
    const value = wantedValue(event, parts, this.#parts.abi)
    const written = value === undefined || event.kind !== 'cr' ? {} : { [event.fields.register]: value }
    if (!IS_AHEAD.has(event.kind)) return { inSlot: {}, others: { ...changes, ...written } }
    const { inSlot, others } = splitChanges(changes, this.#parts.abi)
    return { inSlot, others: { ...others, ...written } }
  }

  /** The instruction takes effect, as without us. */
  #goOn(event: BackendEvent, slot: DataView, parts: Reply): void {
    if (event.kind === 'memory') {
      // In another view the access is made again, with the rights of that one.
      if (parts.view === undefined && !isAsked(parts.step)) this.#letThrough(slot, false)
    } else if (event.kind !== 'breakpoint') {
      if (event.kind !== 'int3' || !isView(parts)) this.#default(slot)
    } else if (!isAsked(parts.step)) this.#stepOver(slot)
  }

  #deny(event: BackendEvent, slot: DataView, parts: Reply): void {
    const { abi } = this.#parts
    // With another rip Xen's emulator would execute what is there.
    const isElsewhere = parts.registers?.rip !== undefined
    if ((event.kind === 'memory' || event.kind === 'io') && !isElsewhere) emulateWithoutWrites(slot)
    if (event.kind === 'int3') {
      setRegisters(slot, { rip: event.fields.address + BigInt(this.#int3Trap(slot).length) }, abi)
    }
  }

  #step(event: BackendEvent, slot: DataView, { step, view }: Reply, isElsewhere: boolean): void {
    const { views, breakpoints, stepping } = this.#parts
    if (event.kind === 'memory' && step === true && !isElsewhere && view === undefined) {
      this.#letThrough(slot, true)
      return
    }
    const isOver = event.kind === 'breakpoint' && !isElsewhere
    const behind = isOver ? breakpoints.aside(physicalOf(slot, ripOf(slot, this.#parts.abi))) : undefined
    if (!views.isOn) {
      stepping.begin(slot, { isReported: this.#isHeard(event.vcpu), behind })
      return
    }
    const back = view === undefined ? slot.getUint16(SLOT.view, true) : views.numberOf(view)
    const through = typeof step === 'object' ? views.numberOf(step.view) : undefined
    stepping.begin(slot, { isReported: this.#isHeard(event.vcpu), view: through, back, behind })
  }

  /** The access is made once: in a view without guards, or with its page open to all for as long. */
  #letThrough(slot: DataView, isAsked: boolean): void {
    const { views, stepping, rights } = this.#parts
    const isReported = isAsked && this.#isHeard(slot.getUint32(SLOT.vcpu, true))
    if (views.isOn) {
      stepping.begin(slot, { isReported, view: XenViews.open, back: slot.getUint16(SLOT.view, true) })
      return
    }
    const frame = faultFrame(slot)
    rights.relax(0, frame)
    stepping.begin(slot, { isReported, behind: () => rights.restore(0, frame) })
  }

  /** Xen's emulator executes the guest's own instruction under a breakpoint of ours. */
  #stepOver(slot: DataView): void {
    const { abi, breakpoints } = this.#parts
    emulate(slot, { instruction: breakpoints.instruction(pagingRegistersOf(slot, abi), ripOf(slot, abi)) })
  }

  /** What the guest would get unwatched. */
  #deliver(vcpu: number, trap: Trap): void {
    try {
      this.#parts.injector.trap(vcpu, trap)
    } catch (error) {
      // Something else is to be delivered first. An int3 and a fault are still ahead of rip: the guest comes by again.
      // A single step's trap gives way to what is injected.
      if (!(error instanceof MicrovmiError && error.code === 'BUSY')) throw error
    }
  }

  /** The guest-physical address of what the vCPU executed: in the page that its view shows. */
  #shownAt(slot: DataView): number {
    const physical = physicalOf(slot, ripOf(slot, this.#parts.abi))
    const offset = physical % PAGE_SIZE
    const frame = this.#parts.views.shown(slot.getUint16(SLOT.view, true), (physical - offset) / PAGE_SIZE)
    return frame * PAGE_SIZE + offset
  }

  /** Throws for steps and views that are not there. */
  #check({ view, step }: Reply): void {
    const { views, canStep } = this.#parts
    if (isAsked(step) && !canStep) {
      throw new MicrovmiError('UNSUPPORTED', 'Xen steps vCPUs by the monitor trap flag of Intel’s processors alone')
    }
    if (view !== undefined) views.check(view)
    if (typeof step === 'object') views.check(step.view)
  }

  #behindCpuid(slot: DataView): bigint {
    return ripOf(slot, this.#parts.abi) + BigInt(slot.getUint32(CPUID.length, true))
  }

  #int3Trap(slot: DataView) {
    return {
      type: TRAP.softwareException,
      vector: 3,
      length: slot.getUint32(DEBUG_LENGTH(this.#parts.abi), true) || 1,
    }
  }

  #debugTrap(slot: DataView) {
    const { debug } = this.#parts.abi
    const extra = debug.pending === undefined ? 0n : slot.getBigUint64(debug.pending, true)
    return { type: TRAP.exception, vector: 1, extra }
  }
}

function isEmpty(parts: Reply): boolean {
  for (const _ in parts) return false
  return true
}

function isAsked(step: Reply['step']): step is Exclude<Reply['step'], undefined | false> {
  return step !== undefined && step !== false
}

function isEmulation(
  parts: Reply,
): parts is Reply & { readonly emulate: Exclude<Reply['emulate'], undefined | false> } {
  return parts.emulate !== undefined && parts.emulate !== false
}

/** Whether the vCPU executes what another view has there. */
function isView({ view, step }: Reply): boolean {
  return view !== undefined || typeof step === 'object'
}
