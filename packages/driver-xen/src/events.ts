import {
  type BackendEvent,
  type EventBackend,
  type EventKind,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type RegisterBackend,
  type Reply,
} from '@microvmi/core/driver'
import { FLAG, REASON, registersOf, SLOT } from './abi/vm-event.ts'
import type { Breakpoints } from './breakpoints.ts'
import { DomainWatch } from './domain-watch.ts'
import { type Injector, TRAP } from './injection.ts'
import { answerFor, Monitor } from './monitor.ts'
import { checkParts, emulate, proceed, setRegisters, splitChanges, wantedValue } from './replies.ts'
import { DEBUG_LENGTH, eventFields, isWanted, kindOf, physicalOf } from './requests.ts'
import type { SessionNote } from './session-note.ts'
import { checkRequest, Settings } from './settings.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** What events need of the rest of the driver. */
export interface EventParts {
  readonly domid: number
  readonly note: SessionNote
  readonly vcpus: () => number
  readonly registers: Required<Pick<RegisterBackend, 'read' | 'write'>>
  readonly breakpoints: Breakpoints
  readonly injector: Injector
  /** Why the domain is of no use any more, if so. */
  readonly gone: () => MicrovmiError | undefined
}

/**
 * Kinds that are reported before anything has happened. At the others Xen goes on before it stops the vCPU: what comes
 * with the request are registers of before, and rip in a response would have the instruction executed once more.
 */
const IS_AHEAD: ReadonlySet<EventKind> = new Set<EventKind>(['breakpoint', 'int3', 'debug', 'descriptor'])

/** A request of Xen's, which is to be answered once. */
type Slot = DataView

/** The events of a domain's monitor. */
export class XenEvents implements EventBackend {
  readonly #xen: Xen
  readonly #parts: EventParts
  #settings: Settings
  readonly #armed = new Map<number, InterceptRequest>()
  /** Taken from the ring and not delivered yet. */
  readonly #queue: Slot[] = []
  readonly #delivered = new Map<BackendEvent, Slot>()
  readonly #spare: Slot[] = []
  #monitor: Monitor | undefined
  #watch: DomainWatch | undefined
  #sink: EventSink | undefined
  #scheduled = false
  /** How many vCPUs there were when last asked. */
  #vcpus = 0

  constructor(xen: Xen, parts: EventParts) {
    this.#xen = xen
    this.#parts = parts
    this.#settings = new Settings(xen, parts.domid)
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    checkRequest(request)
    const isFirst = this.#monitor === undefined
    this.#monitor ??= new Monitor(this.#xen, this.#parts.domid, this.#parts.note, () => this.#wake())
    try {
      this.#change([...this.#armed.values(), request])
      if (request.kind === 'breakpoint') this.#parts.breakpoints.add(armed, request)
    } catch (error) {
      this.#change([...this.#armed.values()])
      if (isFirst) this.#end()
      throw error
    }
    this.#armed.set(armed, request)
    this.#monitor.keepAlive(true)
    this.#watch ??= new DomainWatch(this.#xen, () => this.#look())
  }

  disarm(armed: number): void {
    const monitor = this.#monitor
    if (!monitor || !this.#armed.has(armed)) return
    // A request that is on its way while something is turned off would keep its vCPU for good.
    this.#hold('domain_pause')
    try {
      this.#armed.delete(armed)
      this.#parts.breakpoints.remove(armed)
      this.#settings.apply([...this.#armed.values()])
      this.#drain(monitor)
      this.#answerUnwanted()
      if (this.#armed.size === 0) this.#end()
    } catch (error) {
      this.#failLater(error)
      throw error
    } finally {
      this.#hold('domain_unpause')
    }
  }

  reply(event: BackendEvent, parts: Reply): void {
    const slot = this.#delivered.get(event)
    if (!slot) return
    this.#delivered.delete(event)
    try {
      checkParts(event.kind, parts)
      this.#apply(event, slot, parts)
    } catch (error) {
      // The guest goes on as if unwatched, and the caller hears why it was not as was asked.
      proceed(slot)
      this.#default(slot)
      throw error
    } finally {
      this.#answer(slot)
      this.#monitor?.notify()
    }
  }

  /** Core has disarmed everything. */
  close(): void {
    this.#watch?.close()
    this.#watch = undefined
    this.#end()
  }

  /** A domain has been released, perhaps this one. */
  #look(): void {
    const gone = this.#parts.gone()
    if (gone) this.#fail(gone)
  }

  /** Pauses are counted by Xen: this is one of our own, beside the session's. */
  #hold(call: 'domain_pause' | 'domain_unpause'): void {
    const { xc } = this.#xen.libraries
    if (xc[call](this.#xen.handle, this.#parts.domid) < 0 && !this.#parts.gone()) {
      throw failed(`xc_${call}`, `domain ${this.#parts.domid}`)
    }
  }

  /**
   * Ends everything at once. The ring cannot be trusted any more, but a domain that is there is left as if it had never
   * been watched: it stands still while breakpoints of ours go, and vCPUs that nobody will answer are freed.
   */
  #abandon(): void {
    const numbers = [...this.#armed.keys()]
    this.#queue.length = 0
    this.#delivered.clear()
    this.#armed.clear()
    // Whatever Xen was told to report goes with the monitor.
    this.#settings = new Settings(this.#xen, this.#parts.domid)
    if (this.#parts.gone()) {
      this.#end()
      return
    }
    this.#hold('domain_pause')
    try {
      for (const number of numbers) this.#parts.breakpoints.remove(number)
    } finally {
      try {
        this.#end()
        answerFor(this.#xen, this.#parts.domid, this.#parts.vcpus())
      } finally {
        this.#hold('domain_unpause')
      }
    }
  }

  /** On the event loop. */
  #wake(): void {
    const monitor = this.#monitor
    if (!monitor) return
    try {
      monitor.acknowledge()
      this.#drain(monitor)
      this.#deliverAll()
      monitor.notify()
    } catch (error) {
      this.#fail(error)
    }
  }

  #drain(monitor: Monitor): void {
    do {
      for (;;) {
        const slot = this.#spare.pop() ?? new DataView(new ArrayBuffer(this.#xen.abi.slotLength))
        if (!monitor.take(new Uint8Array(slot.buffer))) {
          this.#spare.push(slot)
          break
        }
        this.#checkVcpu(slot.getUint32(SLOT.vcpu, true))
        this.#queue.push(slot)
      }
    } while (!monitor.sleep())
  }

  #checkVcpu(vcpu: number): void {
    if (vcpu < this.#vcpus) return
    this.#vcpus = this.#parts.vcpus()
    if (vcpu < this.#vcpus) return
    throw new MicrovmiError('PROTOCOL', `a request of vCPU ${vcpu}, where the domain has ${this.#vcpus}`)
  }

  #deliverAll(): void {
    for (let slot = this.#queue.shift(); slot; slot = this.#queue.shift()) this.#deliver(slot)
  }

  #deliver(slot: Slot): void {
    const event = this.#eventOf(slot)
    if (!event) {
      this.#proceed(slot)
      return
    }
    if (event.stops === 'none') this.#proceed(slot)
    else this.#delivered.set(event, slot)
    this.#sink?.deliver(event)
  }

  /** What core hears of a request; `undefined` where nobody wants it. */
  #eventOf(slot: Slot): BackendEvent | undefined {
    const registers = registersOf(slot, this.#xen.abi)
    const kind = kindOf(slot, () => this.#parts.breakpoints.has(physicalOf(slot, registers.rip)))
    if (kind === undefined) return undefined
    const fields = eventFields(kind, slot, registers.rip, this.#xen.abi)
    const armed =
      kind === 'breakpoint'
        ? this.#parts.breakpoints.at(physicalOf(slot, registers.rip), registers.rip, registers.cr3)
        : [...this.#armed]
            .filter(([, request]) => request.kind === kind && isWanted(request, fields))
            .map(([one]) => one)
    if (armed.length === 0) return undefined
    const isPaused = (slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused) !== 0
    return {
      kind,
      armed,
      vcpu: slot.getUint32(SLOT.vcpu, true),
      stops: isPaused ? 'vcpu' : 'none',
      complete: true,
      ...(IS_AHEAD.has(kind) ? { registers: () => registers } : {}),
      fields,
    } as BackendEvent
  }

  /** Answers so that the guest goes on as if unwatched. */
  #proceed(slot: Slot): void {
    try {
      proceed(slot)
      this.#default(slot)
    } finally {
      this.#answer(slot)
    }
  }

  #default(slot: Slot): void {
    const { breakpoints, injector } = this.#parts
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    const reason = slot.getUint32(SLOT.reason, true)
    if (reason === REASON.descriptor) emulate(slot, true)
    if (reason === REASON.debugException) injector.trap(vcpu, this.#debugTrap(slot))
    if (reason !== REASON.breakpoint) return
    const { rip } = registersOf(slot, this.#xen.abi)
    const physical = physicalOf(slot, rip)
    if (breakpoints.has(physical)) emulate(slot, { instruction: breakpoints.instruction(vcpu, rip) })
    // Where neither is there, ours was taken out meanwhile: the guest executes what it has.
    else if (breakpoints.isGuests(physical)) {
      try {
        injector.trap(vcpu, this.#int3Trap(slot))
      } catch (error) {
        // Something else is to be delivered first. rip is at the int3 still: the guest comes by again.
        if (!(error instanceof MicrovmiError && error.code === 'BUSY')) throw error
      }
    }
  }

  #apply(event: BackendEvent, slot: Slot, parts: Reply): void {
    const { vcpu } = event
    proceed(slot)
    const changes = parts.registers ?? {}
    const { inSlot, others } = IS_AHEAD.has(event.kind)
      ? splitChanges(changes, this.#xen.abi)
      : { inSlot: {}, others: changes }
    const value = wantedValue(event, parts)
    const written = {
      ...others,
      ...(value === undefined || event.kind !== 'cr' ? {} : { [event.fields.register]: value }),
    }
    if (parts.inject !== undefined) this.#parts.injector.inject(vcpu, parts.inject)
    if (parts.reinject === true) {
      const trap = event.kind === 'debug' ? this.#debugTrap(slot) : this.#int3Trap(slot)
      this.#parts.injector.trap(vcpu, trap)
    }
    const movesRip = changes.rip !== undefined
    const takesOver = parts.reinject === true || parts.inject !== undefined || movesRip || parts.deny === true
    if (event.kind === 'breakpoint' && !takesOver && !parts.emulate) {
      // The response has room for the instruction or for registers.
      const all = { ...written, ...inSlot }
      if (Object.keys(all).length > 0) this.#parts.registers.write(vcpu, all)
      emulate(slot, { instruction: this.#parts.breakpoints.instruction(vcpu, event.fields.address) })
      return
    }
    if (Object.keys(written).length > 0) this.#parts.registers.write(vcpu, written)
    if (parts.emulate) emulate(slot, parts.emulate)
    else if (!takesOver) this.#default(slot)
    if (Object.keys(inSlot).length > 0) setRegisters(slot, inSlot, this.#xen.abi)
  }

  #int3Trap(slot: Slot) {
    return { type: TRAP.softwareException, vector: 3, length: slot.getUint32(DEBUG_LENGTH(this.#xen.abi), true) || 1 }
  }

  #debugTrap(slot: Slot) {
    const { debug } = this.#xen.abi
    const extra = debug.pending === undefined ? 0n : slot.getBigUint64(debug.pending, true)
    return { type: TRAP.exception, vector: 1, extra }
  }

  #answer(slot: Slot): void {
    this.#monitor?.answer(new Uint8Array(slot.buffer))
    this.#spare.push(slot)
  }

  /** Turns on what is to be reported; where that means turning something else off, on a domain that stands still. */
  #change(requests: readonly InterceptRequest[]): void {
    if (!this.#settings.losesWith(requests)) {
      this.#settings.apply(requests)
      return
    }
    this.#hold('domain_pause')
    try {
      this.#settings.apply(requests)
      if (this.#monitor) this.#drain(this.#monitor)
      this.#schedule()
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'PROTOCOL') this.#failLater(error)
      throw error
    } finally {
      this.#hold('domain_unpause')
    }
  }

  /** After a change: what nobody waits for any more goes on, the rest is delivered on the event loop. */
  #answerUnwanted(): void {
    const waiting = this.#queue.splice(0)
    for (const slot of waiting) {
      if (this.#eventOf(slot)) this.#queue.push(slot)
      else this.#proceed(slot)
    }
    this.#monitor?.notify()
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#wake()
    })
  }

  #end(): void {
    const monitor = this.#monitor
    this.#monitor = undefined
    monitor?.close()
  }

  /** Within a call of core's, which the sink must not be called from. */
  #failLater(error: unknown): void {
    setImmediate(() => this.#fail(error))
  }

  #fail(error: unknown): void {
    let reason =
      error instanceof MicrovmiError ? error : new MicrovmiError('HYPERVISOR', String(error), { cause: error })
    try {
      this.#abandon()
    } catch (other) {
      const message = `${reason.message}; and the guest could not be put back as it was: ${other}`
      reason = new MicrovmiError(reason.code, message, { cause: other })
    }
    this.#sink?.fail(reason)
  }
}
