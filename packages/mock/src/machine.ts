import type { BackendEvent, EventSink, LifecycleChange, Reply } from '@microvmi/core/driver'
import { applyReply } from './answer.ts'
import { Breakpoints } from './breakpoints.ts'
import { HELD } from './exceptions.ts'
import { buildImage, type Image } from './image.ts'
import { Journal } from './journal.ts'
import { kernel } from './kernel.ts'
import { CLOCK_PORT, CONSOLE_PORT, DIRECT_MAP } from './layout.ts'
import type { SettledOptions } from './options.ts'
import { canonical, uncanonical } from './page-tables.ts'
import { PhysicalMemory } from './physical-memory.ts'
import type { Platform } from './platform.ts'
import { Processor } from './processor.ts'
import { Random } from './random.ts'
import { readRegisters } from './registers.ts'
import { type Stop, Vcpu } from './vcpu.ts'
import { Views } from './views.ts'
import { type Occurrence, Watches } from './watches.ts'

/** How many instructions a vCPU executes at most before the next one's turn. */
const LONGEST_TURN = 64
/** rdi, which tells the kernel where its vCPU's page is. */
const RDI = 7
/** What of the console is kept. */
const CONSOLE_LENGTH = 65_536

/** The guest's hardware: memory, vCPUs, devices, and what watches them. */
export class Machine implements Platform {
  readonly options: SettledOptions
  readonly memory: PhysicalMemory
  readonly views: Views
  readonly watches = new Watches()
  readonly breakpoints: Breakpoints
  readonly journal: Journal
  image: Image
  processors: Processor[] = []
  /** Who hears of events. */
  sink: EventSink | undefined
  /** Called when something can go on, or has to be delivered. */
  onWake: () => void = () => {}
  alive = true
  console = ''
  /** Who has paused it. */
  readonly pausedBy = new Set<object>()
  #random: Random
  #plugged: number
  readonly #stops = new Map<BackendEvent, Processor>()
  #outbox: BackendEvent[] = []
  #delivering = false

  constructor(options: SettledOptions) {
    this.options = options
    this.journal = new Journal(options.journalLength)
    this.memory = new PhysicalMemory(options.memory, options.highMemory)
    const flush = () => this.flush()
    this.views = new Views(this.memory, flush)
    this.image = buildImage(this.memory, options)
    this.breakpoints = new Breakpoints(this.memory, () => this.#roots(), flush)
    this.#random = new Random(options.seed)
    this.#plugged = options.vcpus
    this.#powerOn()
  }

  get vcpuCount(): number {
    return this.processors.length
  }

  get running(): boolean {
    return this.alive && this.pausedBy.size === 0
  }

  /** The vCPU of a number that is known to be there. */
  processor(vcpu: number): Processor {
    const found = this.processors[vcpu]
    if (!found) throw new RangeError(`there is no vCPU ${vcpu}`)
    return found
  }

  /** Forgets every translation that a vCPU has kept. */
  flush(): void {
    for (const { mmu } of this.processors) mmu.flush()
  }

  /**
   * Lets the vCPUs go on, in turns, to their targets, and delivers what happens. Ends when no vCPU can go on, or after
   * about so many instructions. Returns whether there is more to do.
   */
  turn(limit: number): boolean {
    const { processors } = this
    const end = this.#time() + limit
    for (;;) {
      let moved = false
      for (const processor of processors) {
        const { vcpu } = processor
        if (!this.#mayRun(processor)) continue
        moved = true
        processor.run(Math.min(vcpu.target, vcpu.clock + this.#random.between(1, LONGEST_TURN)))
        if (this.#outbox.length > 0) this.deliver()
        // A handler may have reset the guest.
        if (this.processors !== processors) return true
      }
      if (!moved) return false
      if (this.#time() >= end) return true
    }
  }

  /** The vCPUs that wait for answers. */
  get held(): readonly { readonly vcpu: number; readonly kind: string }[] {
    return this.processors.flatMap(({ vcpu }) => (vcpu.stop ? [{ vcpu: vcpu.number, kind: vcpu.stop.event.kind }] : []))
  }

  hold(
    vcpu: Vcpu,
    occurrence: Occurrence,
    armed: number[],
    manner: Stop['manner'],
    finish: (parts: Reply) => void,
  ): never {
    const event: BackendEvent = {
      ...occurrence,
      armed,
      vcpu: vcpu.number,
      stops: this.options.stops,
      complete: true,
      registers: () => readRegisters(vcpu),
    }
    vcpu.stop = { event, rip: vcpu.rip, manner, finish }
    // An instruction that starts again makes its accesses again.
    if (manner === 'repeat') vcpu.hits.length = 0
    this.#stops.set(event, this.processor(vcpu.number))
    this.#outbox.push(event)
    throw HELD
  }

  report(vcpu: Vcpu | undefined, occurrence: Occurrence, armed: number[]): void {
    this.#outbox.push({ ...occurrence, armed, vcpu: vcpu?.number ?? 0, stops: 'none', complete: true })
  }

  note(vcpu: Vcpu, occurrence: Occurrence): void {
    this.journal.add({ ...occurrence, vcpu: vcpu.number, clock: vcpu.clock, rip: canonical(vcpu.rip) })
  }

  /** Hands over what has happened. From the event loop only, or from within `turn`. */
  deliver(): void {
    if (this.#delivering || !this.sink) return
    this.#delivering = true
    try {
      for (let event = this.#outbox.shift(); event; event = this.#outbox.shift()) this.sink?.deliver(event)
    } finally {
      this.#delivering = false
    }
  }

  /** Whether what calls is called by an event's delivery. */
  get delivering(): boolean {
    return this.#delivering
  }

  /** Answers an event. An event that waits no longer is none of the guest's business. */
  reply(event: BackendEvent, parts: Reply): void {
    const processor = this.#stops.get(event)
    if (!processor) return
    this.#stops.delete(event)
    try {
      applyReply(processor, parts)
    } finally {
      this.onWake()
    }
  }

  /** A request is no longer armed: what waits for nobody else proceeds. */
  disarm(number: number): void {
    this.watches.remove(number)
    this.breakpoints.remove(number)
    const concerned = (event: BackendEvent): boolean => event.armed.every((one) => !this.watches.has(one))
    this.#outbox = this.#outbox.filter((event) => !concerned(event))
    for (const event of [...this.#stops.keys()]) if (concerned(event)) this.reply(event, {})
    this.attend()
  }

  /** Each vCPU looks around before its next instruction: what is armed has changed. */
  attend(): void {
    for (const { vcpu } of this.processors) vcpu.attention = true
  }

  /** Tells of something that happened to the whole VM. */
  change(change: LifecycleChange): void {
    const armed = this.watches.matching('lifecycle', () => true)
    if (armed.length > 0) this.report(undefined, { kind: 'lifecycle', fields: { change } }, armed)
    this.onWake()
  }

  /** Adds one of the spare vCPUs. False when there is none left. */
  plug(): boolean {
    const page = this.image.cpus[this.#plugged]
    if (page === undefined) return false
    this.processors = [...this.processors, this.#boot(page, this.#plugged)]
    this.#plugged += 1
    return true
  }

  crash(): void {
    this.alive = false
    this.change('crashed')
  }

  /** Memory and vCPUs as at power on; what is armed stays. */
  reset(): void {
    for (const event of [...this.#stops.keys()]) this.#stops.delete(event)
    this.#outbox = this.#outbox.filter(({ stops }) => stops === 'none')
    this.memory.clear()
    this.image = buildImage(this.memory, this.options)
    this.breakpoints.repatch()
    this.#powerOn()
    this.alive = true
    this.attend()
    this.change('reset')
  }

  portRead(vcpu: Vcpu, port: number): number | undefined {
    if (port !== CLOCK_PORT) return undefined
    return Math.floor((vcpu.clock * 1000) / this.options.speed) & 0xff
  }

  portWrite(port: number, value: number): void {
    if (port !== CONSOLE_PORT) return
    this.console = (this.console + String.fromCharCode(value & 0xff)).slice(-CONSOLE_LENGTH)
  }

  #powerOn(): void {
    this.#random = new Random(this.options.seed ^ 0x7475_726e)
    const pages = this.image.cpus.slice(0, this.#plugged)
    this.processors = pages.map((page, number) => this.#boot(page, number))
  }

  /** A vCPU as at power on. Its time slices are its own: what it does depends on no other one's pace. */
  #boot(page: number, number: number): Processor {
    const { seed, timeSlice } = this.options
    const random = new Random(seed + 0x9e37 * (number + 1))
    const slice = () => random.between(Math.floor(timeSlice / 2), Math.floor((timeSlice * 3) / 2))
    const vcpu = new Vcpu(number)
    const processor = new Processor(vcpu, this, slice)
    vcpu.rip = uncanonical(kernel.labels.get('start') ?? 0n) ?? 0
    vcpu.setWord(RDI, canonical(DIRECT_MAP + page))
    vcpu.nextTick = slice()
    processor.setAddressSpace(BigInt(this.image.kernel.root))
    return processor
  }

  #mayRun({ vcpu }: Processor): boolean {
    if (!this.running || vcpu.stop) return false
    if (this.options.stops === 'vm' && this.#stops.size > 0) return false
    return vcpu.clock < vcpu.target || vcpu.after.length > 0
  }

  #time(): number {
    return this.processors.reduce((sum, { vcpu }) => sum + vcpu.clock, 0)
  }

  #roots(): Set<number> {
    return new Set([
      ...this.image.tasks.map(({ space }) => space.root),
      ...this.processors.map(({ vcpu }) => vcpu.root),
    ])
  }
}
