import {
  type BackendEvent,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  PAGE_SIZE,
  pageFrame,
  pageStart,
} from '@microvmi/core/driver'
import { controlRegisterWritten, type Fields, isWrmsr, type Placement, placementOf } from './breakpoints.ts'
import type { FdpClient } from './client.ts'
import { ACCESS, BREAKPOINT, STATE } from './layout.ts'
import type { FdpRunState } from './run-state.ts'
import { SingleSteps } from './steps.ts'

/** Milliseconds between two looks at the state-changed flag, while nothing happens. */
const POLL_INTERVAL = 1
/** After an event the flag is looked at in every turn of the event loop for so many milliseconds. */
const EAGER = 2

const CONTROL_NAMES = new Map([
  [0, 'cr0'],
  [3, 'cr3'],
  [4, 'cr4'],
] as const)
type ControlName = 'cr0' | 'cr3' | 'cr4'

interface Armed {
  readonly request: InterceptRequest
  readonly placement: Placement
  /** The server's number: shared where it has one breakpoint for several requests. */
  readonly id: number
}

/** A vCPU that has stopped at a breakpoint. */
interface Hit {
  readonly vcpu: number
  /** Whether it has to be stepped over the instruction: else it would stop there again. */
  readonly step: boolean
  /** Events that have no answer yet. */
  waiting: number
}

/**
 * Breakpoints of the server as events. The server says that a vCPU has stopped, not at what: that is worked out from
 * where it stands.
 */
export class FdpEvents implements EventBackend {
  readonly #client: FdpClient
  readonly #run: FdpRunState
  readonly #steps: SingleSteps
  readonly #armed = new Map<number, Armed>()
  readonly #hits = new Map<number, Hit>()
  /** vCPUs whose hit has its answer: the server says "hit" of them until the VM goes on. */
  readonly #answered = new Set<number>()
  readonly #queue: BackendEvent[] = []
  readonly #hitOf = new WeakMap<BackendEvent, Hit>()
  /** What each vCPU's control registers held when they were looked at last. */
  readonly #controls = new Map<string, bigint>()
  #sink: EventSink | undefined
  #poll: { cancel(): void } | undefined
  #eagerUntil = 0

  constructor(client: FdpClient, run: FdpRunState) {
    this.#client = client
    this.#run = run
    this.#steps = new SingleSteps(client, run)
    run.findEvents = () => this.#find()
    run.wentOn = () => this.#answered.clear()
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    const isFirst = this.#isIdle
    if (isFirst) this.#client.channel.takeEvents()
    try {
      if (request.kind === 'singlestep') this.#steps.arm(request, armed)
      else this.#run.whileStopped(() => this.#place(request, armed))
    } catch (error) {
      if (isFirst) this.#client.channel.dropEvents()
      throw error
    }
    this.#schedule()
  }

  disarm(armed: number): void {
    const one = this.#armed.get(armed)
    try {
      if (one) this.#run.whileStopped(() => this.#remove(one, armed))
      else this.#steps.disarm(armed)
    } finally {
      this.#armed.delete(armed)
      if (this.#isIdle) {
        this.#poll?.cancel()
        this.#poll = undefined
        this.#client.channel.dropEvents()
      }
    }
  }

  reply(event: BackendEvent): void {
    if (event.kind === 'singlestep') {
      this.#steps.answered()
      return
    }
    const hit = this.#hitOf.get(event)
    if (!hit) return
    this.#hitOf.delete(event)
    this.#answer(hit)
  }

  get #isIdle(): boolean {
    return this.#armed.size === 0 && !this.#steps.isArmed
  }

  #place(request: InterceptRequest, armed: number): void {
    const placement = placementOf(request, this.#client)
    this.#checkUnambiguous(placement)
    const same = [...this.#armed.values()].find(({ placement: other }) => isSame(other, placement))
    const id = same?.id ?? this.#client.setBreakpoint({ vcpu: 0, isPhysical: true, ...placement })
    if (id < 0) {
      throw new MicrovmiError('HYPERVISOR', `${this.#client.channel.name}: the FDP server set no breakpoint (${id})`)
    }
    this.#client.channel.noteBreakpoint(id, true)
    this.#armed.set(armed, { request, placement, id })
    if (request.kind === 'cr') this.#noteControls()
  }

  /** The server does not tell which page a vCPU has read or written: so there is one range of that sort at a time. */
  #checkUnambiguous(placement: Placement): void {
    if (!isDataPage(placement)) return
    if (placement.size !== PAGE_SIZE) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        'FDP does not tell which page was read or written: watch one page at a time',
      )
    }
    for (const { placement: other } of this.#armed.values()) {
      if (!isDataPage(other) || isSame(other, placement)) continue
      throw new MicrovmiError(
        'BUSY',
        'FDP does not tell which page was read or written: another one is watched already',
      )
    }
  }

  #remove(one: Armed, armed: number): void {
    // What has stopped at it meanwhile would be answered by nobody.
    this.#find()
    this.#armed.delete(armed)
    this.#dropQueued(armed)
    const isShared = [...this.#armed.values()].some(({ id }) => id === one.id)
    if (isShared) return
    this.#client.unsetBreakpoint(one.id)
    this.#client.channel.noteBreakpoint(one.id, false)
  }

  #dropQueued(armed: number): void {
    for (const event of this.#queue.splice(0)) {
      const left = event.armed.filter((number) => number !== armed)
      const hit = this.#hitOf.get(event)
      if (left.length > 0) {
        const kept: BackendEvent = { ...event, armed: left }
        if (hit) this.#hitOf.set(kept, hit)
        this.#queue.push(kept)
      } else if (hit) {
        this.#answer(hit)
      }
    }
  }

  #schedule(): void {
    if (this.#poll || this.#isIdle) return
    const look = (): void => {
      this.#poll = undefined
      this.#look()
      this.#schedule()
    }
    if (performance.now() < this.#eagerUntil) {
      const immediate = setImmediate(look)
      this.#poll = { cancel: () => clearImmediate(immediate) }
    } else {
      const timer = setTimeout(look, POLL_INTERVAL)
      this.#poll = { cancel: () => clearTimeout(timer) }
    }
  }

  /** Called from the event loop: the only place where events are handed over. */
  #look(): void {
    try {
      this.#client.channel.checkAlive()
      if (this.#client.channel.takeStateChanged()) this.#find()
      const step = this.#hits.size === 0 ? this.#steps.next() : undefined
      if (step) this.#queue.push(step)
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#armed.clear()
      this.#steps.abandon()
      this.#sink?.fail(error)
      return
    }
    if (this.#queue.length > 0) this.#eagerUntil = performance.now() + EAGER
    for (const event of this.#queue.splice(0)) this.#sink?.deliver(event)
  }

  /** Queues events for the vCPUs that stand at a breakpoint. */
  #find(): void {
    if (this.#armed.size === 0 || (this.#client.state() & STATE.breakpointHit) === 0) return
    for (let vcpu = 0; vcpu < this.#client.vcpuCount(); vcpu++) {
      if (this.#hits.has(vcpu) || this.#answered.has(vcpu)) continue
      if ((this.#client.vcpuState(vcpu) & STATE.breakpointHit) === 0) continue
      this.#found(vcpu)
    }
  }

  #found(vcpu: number): void {
    const { events, step } = this.#explain(vcpu)
    const hit: Hit = { vcpu, step, waiting: Math.max(1, events.length) }
    this.#hits.set(vcpu, hit)
    this.#run.stoppedByEvent()
    for (const event of events) {
      this.#hitOf.set(event, hit)
      this.#queue.push(event)
    }
    if (events.length === 0) this.#answer(hit)
  }

  #answer(hit: Hit): void {
    hit.waiting -= 1
    if (hit.waiting > 0) return
    this.#hits.delete(hit.vcpu)
    this.#answered.add(hit.vcpu)
    try {
      if (hit.step) this.#client.singleStep(hit.vcpu)
    } finally {
      this.#run.answered()
    }
  }

  /** Which of the armed requests a vCPU has stopped for. */
  #explain(vcpu: number): { readonly events: BackendEvent[]; readonly step: boolean } {
    const events: BackendEvent[] = []
    const add = (armed: readonly number[], fields: Fields): void => {
      if (armed.length === 0) return
      events.push({ ...fields, armed, vcpu, stops: 'vm', complete: true } as BackendEvent)
    }
    const rip = this.#client.readRegister(vcpu, 'rip')
    const physical = Number(this.#client.virtualToPhysical(vcpu, rip))
    const cr3 = this.#client.readRegister(vcpu, 'cr3')
    if (this.#has(BREAKPOINT.msr) && isWrmsr(this.#readVirtual(vcpu, rip, 2))) {
      const msr = Number(this.#client.readRegister(vcpu, 'rcx') & 0xffff_ffffn)
      const armed = this.#matching(BREAKPOINT.msr, msr)
      if (armed.length > 0) {
        const value = this.#msrValue(vcpu, msr)
        add(this.#changing(armed, value), { kind: 'msr', fields: { msr, ...value } })
        // The server steps over it by itself.
        return { events, step: false }
      }
    }
    const control = this.#has(BREAKPOINT.cr) ? this.#controlWritten(vcpu, rip) : undefined
    if (control && !this.#isSoftAt(physical)) {
      add(this.#changing(this.#matching(BREAKPOINT.cr, control.number), control), {
        kind: 'cr',
        fields: { register: control.register, old: control.old, new: control.new },
      })
      // The write is done: rip is behind it.
      return { events, step: false }
    }
    const soft = this.#matching(BREAKPOINT.soft, physical).filter((number) => isIn(this.#requestOf(number), cr3))
    add(soft, { kind: 'breakpoint', fields: { address: rip } })
    this.#addPages(physical, rip, add)
    return { events, step: true }
  }

  #addPages(physical: number, rip: bigint, add: (armed: readonly number[], fields: Fields) => void): void {
    const pages = [...this.#armed].filter(([, { placement }]) => placement.type === BREAKPOINT.page)
    const executed = pages.filter(
      ([
        ,
        {
          placement: { access, address, size },
        },
      ]) => (access & ACCESS.execute) !== 0 && physical >= address && physical < address + size,
    )
    const numbers = (found: typeof pages) => found.map(([number]) => number)
    const isExecuted = executed.length > 0 && !this.#isSoftAt(physical)
    if (isExecuted) {
      add(numbers(executed), {
        kind: 'memory',
        fields: { address: physical, virtualAddress: rip, access: 'x', view: undefined },
      })
      return
    }
    const data = pages.filter(([, { placement }]) => isDataPage(placement))
    const [first] = data
    if (!first || this.#isSoftAt(physical)) return
    const access = (first[1].placement.access & ACCESS.read) !== 0 ? 'rw' : 'w'
    add(numbers(data), {
      kind: 'memory',
      fields: { address: pageStart(first[1].placement.address), virtualAddress: undefined, access, view: undefined },
    })
  }

  /** The control register that was just written, and what it held before. */
  #controlWritten(vcpu: number, rip: bigint) {
    const number = controlRegisterWritten(this.#readVirtual(vcpu, rip - 4n, 4))
    const register = number === undefined ? undefined : CONTROL_NAMES.get(number as 0)
    if (number === undefined || register === undefined) return undefined
    const value = this.#client.readRegister(vcpu, register)
    const old = this.#controls.get(`${vcpu} ${register}`) ?? value
    this.#controls.set(`${vcpu} ${register}`, value)
    return { number, register: register as ControlName, old, new: value }
  }

  #noteControls(): void {
    for (let vcpu = 0; vcpu < this.#client.vcpuCount(); vcpu++) {
      for (const register of CONTROL_NAMES.values()) {
        this.#controls.set(`${vcpu} ${register}`, this.#client.readRegister(vcpu, register))
      }
    }
  }

  #msrValue(vcpu: number, msr: number): { readonly old: bigint; readonly new: bigint } {
    const low = this.#client.readRegister(vcpu, 'rax') & 0xffff_ffffn
    const high = this.#client.readRegister(vcpu, 'rdx') & 0xffff_ffffn
    return { old: this.#client.readMsr(vcpu, msr), new: (high << 32n) | low }
  }

  /** Those of the numbers whose filter lets this change through. */
  #changing(armed: readonly number[], { old, new: now }: { old: bigint; new: bigint }): number[] {
    return armed.filter((number) => {
      const request = this.#requestOf(number)
      if (request?.kind === 'cr' && request.mask !== undefined) return ((old ^ now) & request.mask) !== 0n
      if (request?.kind === 'cr') return request.onChange === false || old !== now
      return request?.kind !== 'msr' || request.onChange !== true || old !== now
    })
  }

  #requestOf(armed: number): InterceptRequest | undefined {
    return this.#armed.get(armed)?.request
  }

  #has(type: number): boolean {
    return [...this.#armed.values()].some(({ placement }) => placement.type === type)
  }

  #isSoftAt(physical: number): boolean {
    return this.#matching(BREAKPOINT.soft, physical).length > 0
  }

  #matching(type: number, address: number): number[] {
    return [...this.#armed]
      .filter(([, { placement }]) => placement.type === type && placement.address === address)
      .map(([number]) => number)
  }

  /** Guest memory as a vCPU sees it; what is not mapped is zero. */
  #readVirtual(vcpu: number, address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, address + BigInt(done))
      const physical = Number(this.#client.virtualToPhysical(vcpu, at))
      const most = Math.min(length - done, PAGE_SIZE - Number(at % BigInt(PAGE_SIZE)))
      if (physical !== 0) this.#client.readPhysical(physical, bytes.subarray(done, done + most))
      done += most
    }
    return bytes
  }
}

function isSame(one: Placement, other: Placement): boolean {
  return (
    one.type === other.type &&
    one.address === other.address &&
    one.size === other.size &&
    // Of two breakpoints at one address the server makes one; those on pages with other rights it keeps apart.
    one.access === other.access
  )
}

function isDataPage({ type, access }: Placement): boolean {
  return type === BREAKPOINT.page && (access & (ACCESS.read | ACCESS.write)) !== 0
}

function isIn(request: InterceptRequest | undefined, cr3: bigint): boolean {
  if (request?.kind !== 'breakpoint' || request.addressSpace === undefined) return true
  return pageFrame(request.addressSpace) === pageFrame(cr3)
}
