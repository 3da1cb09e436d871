import type { EventKind, MemoryRange, Registers } from '@microvmi/core'
import { badArgument, type LifecycleChange, MicrovmiError } from '@microvmi/core/driver'
import { guests } from './guests.ts'
import { Host } from './host.ts'
import type { Task } from './image.ts'
import type { JournalEntry } from './journal.ts'
import { kernel } from './kernel.ts'
import { TASK } from './layout.ts'
import type { GuestOptions } from './options.ts'
import type { Mapping } from './page-tables.ts'
import type { PhysicalMemory } from './physical-memory.ts'
import { readRegisters } from './registers.ts'

const PAGE = 4096

/** How long `run` and `advance` wait. */
export interface RunOptions {
  /** Milliseconds that the guest may take, the answers to its events included. Default 10,000. */
  readonly timeout?: number
}

/** A process of a guest, as it truly is. The counts are the guest kernel's own. */
export interface GuestProcess {
  readonly name: string
  /** 0 for what a vCPU does when it has nothing to do. */
  readonly pid: number
  /** The vCPU that it runs on. */
  readonly vcpu: number
  readonly cr3: bigint
  /** What its page tables map, the kernel's half included. */
  readonly mappings: readonly Mapping[]
  /** The labels of its program: canonical virtual addresses. */
  readonly labels: ReadonlyMap<string, bigint>
  /** Guest-physical addresses of its pages of data. */
  readonly data: readonly number[]
  /** Guest-physical address of its task structure. */
  readonly task: number
  /** How often its program began again: the first word of its data, by convention. */
  readonly rounds: bigint
  /** How often the kernel has switched to it. */
  readonly switches: bigint
  readonly systemCalls: bigint
  readonly faults: bigint
  readonly breakpoints: bigint
  readonly debugExceptions: bigint
}

/** A guest in memory, as who made it sees it: how it is driven, and the truth about it. */
export class Guest {
  readonly #host: Host

  /** Use `createGuest`. */
  constructor(host: Host) {
    this.#host = host
  }

  get name(): string {
    return this.#host.options.name
  }

  /** Unique in this process: what `open` takes where several guests have one name. */
  get id(): string {
    return this.#host.id
  }

  get vcpuCount(): number {
    return this.#host.machine.vcpuCount
  }

  /**
   * Lets each vCPU execute so many instructions (or be halted as long), while the event loop goes round and events are
   * answered. With a real clock: waits until they have.
   *
   * Rejects with `TIMEOUT` when an event is not answered, or a pause not ended, in time.
   */
  run(instructions: number, { timeout = 10_000 }: RunOptions = {}): Promise<void> {
    return this.#host.clock.run(instructions, timeout)
  }

  /** Lets time pass in the guest: `run` by milliseconds, at the guest's speed. */
  advance(milliseconds: number, options?: RunOptions): Promise<void> {
    return this.run(Math.round((milliseconds * this.#host.options.speed) / 1000), options)
  }

  /**
   * Like `run`, but at once, within this call: handlers are called, loops over events are not. Returns how many
   * instructions were executed: less than asked for where a vCPU waits for an answer or is halted.
   */
  runNow(instructions: number): number {
    return this.#host.clock.runNow(instructions)
  }

  /** As its owner would, not as a session: until `resume`. */
  pause(): void {
    this.#host.pause()
  }

  resume(): void {
    this.#host.resume()
  }

  /** Memory and vCPUs become what they were at first. What is armed stays, and so do added pages. */
  reset(): void {
    this.#host.machine.reset()
  }

  /** The guest ends; its VM is still there, and can be read. */
  shutDown(): void {
    this.#host.machine.alive = false
    this.#host.machine.change('shutdown')
  }

  /** Tells lifecycle intercepts of something; nothing else happens. */
  announce(change: LifecycleChange): void {
    this.#host.machine.change(change)
  }

  /** The VM ends under whoever has it open: from now on they get `VM_GONE`. */
  vanish(why = 'it was told to'): void {
    this.#host.vanish(why)
  }

  /** The next `calls` of sessions throw this. Default: one. */
  fail(error: MicrovmiError, calls = 1): void {
    this.#host.fail(error, calls)
  }

  /** Adds one of the spare vCPUs. Throws `BUSY` when there is none left. Returns its number. */
  addVcpu(): number {
    if (!this.#host.machine.plug()) throw new MicrovmiError('BUSY', 'there is no spare vCPU: see spareVcpus')
    return this.vcpuCount - 1
  }

  /** A device's interrupt, 33 to 255. */
  interrupt(vcpu: number, vector: number): void {
    if (!Number.isInteger(vector) || vector < 33 || vector > 255)
      throw badArgument('devices have the vectors 33 to 255')
    this.#processor(vcpu).interrupt(vector)
  }

  /** The processes, then what vCPUs do when they have none. */
  get processes(): readonly GuestProcess[] {
    const { memory, image } = this.#host.machine
    return image.tasks.map((task) => processOf(task, memory))
  }

  /** The process of a name. Throws `BAD_ARGUMENT`. */
  process(name: string): GuestProcess {
    const found = this.processes.find((process) => process.name === name)
    if (found) return found
    throw badArgument(`there is no process ${name}; there are ${this.processes.map((one) => one.name).join(', ')}`)
  }

  /** The kernel's page tables, and the labels of its code, as canonical virtual addresses. */
  get kernel(): {
    readonly cr3: bigint
    readonly labels: ReadonlyMap<string, bigint>
    readonly mappings: readonly Mapping[]
  } {
    const { root, mappings } = this.#host.machine.image.kernel
    return { cr3: BigInt(root), labels: kernel.labels, mappings }
  }

  /** What the guest did, newest last. */
  get journal(): readonly JournalEntry[] {
    return this.#host.machine.journal.entries
  }

  /** How often it did things of a kind since it was made. */
  count(kind: EventKind): number {
    return this.#host.machine.journal.count(kind)
  }

  /** What the guest has written to its console's port, the newest 64 Ki characters. */
  get console(): string {
    return this.#host.machine.console
  }

  /** A vCPU's registers, and how long it has run. */
  vcpu(vcpu: number): {
    readonly registers: Registers
    readonly clock: number
    readonly halted: boolean
    readonly view: number
  } {
    const state = this.#processor(vcpu).vcpu
    return { registers: readRegisters(state), clock: state.clock, halted: state.halted, view: state.view }
  }

  /** The vCPUs that wait for answers, and the kinds of their events. */
  get held(): readonly { readonly vcpu: number; readonly kind: string }[] {
    return this.#host.machine.held
  }

  get ranges(): readonly MemoryRange[] {
    return this.#host.machine.memory.ranges
  }

  /**
   * What truly is in memory, breakpoints of a session included. A fresh buffer. Throws `BAD_ARGUMENT` where there is
   * none.
   */
  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    const done = this.#host.machine.memory.read(address, bytes)
    if (done < length) throw badArgument(`there is no memory at 0x${(address + done).toString(16)}`)
    return bytes
  }

  /** Changes memory. */
  write(address: number, bytes: Uint8Array): void {
    const { machine } = this.#host
    const done = machine.memory.write(address, bytes)
    if (done < bytes.length) throw badArgument(`there is no memory at 0x${(address + done).toString(16)}`)
    machine.flush()
  }

  /**
   * Where a process has mapped a virtual address: from what was mapped, not by its page tables. `undefined` where
   * nothing is.
   */
  translate(process: Pick<GuestProcess, 'mappings'>, virtual: bigint): number | undefined {
    const found = process.mappings.find((one) => virtual >= one.virtual && virtual < one.virtual + BigInt(one.length))
    return found && found.physical + Number(virtual - found.virtual)
  }

  /** Takes it off the list, and stops it. Sessions get `VM_GONE`. */
  remove(): void {
    guests.delete(this.#host)
    this.#host.vanish('its guest was removed')
  }

  [Symbol.dispose](): void {
    this.remove()
  }

  #processor(vcpu: number) {
    if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= this.vcpuCount) throw badArgument(`there is no vCPU ${vcpu}`)
    return this.#host.machine.processor(vcpu)
  }
}

/**
 * Makes a guest that `open(mock, { vm: name })` finds, until it is removed.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { createGuest, mock } from '@microvmi/mock'
 *
 * const guest = createGuest({ name: 'test', seed: 7, vcpus: 1 })
 * const vm = await open(mock, { vm: 'test' })
 * guest.runNow(100_000)
 * console.log(vm.readRegisters(0).cr3, guest.count('cr'))
 * await vm.close()
 * guest.remove()
 * ```
 */
export function createGuest(options: GuestOptions = {}): Guest {
  const host = new Host(options)
  guests.add(host)
  return new Guest(host)
}

function processOf(task: Task, memory: PhysicalMemory): GuestProcess {
  const word = (address: number): bigint =>
    memory.page(Math.floor(address / PAGE))?.view.getBigUint64(address % PAGE, true) ?? 0n
  const { name, pid, vcpu, space, program, data, page } = task
  return {
    name,
    pid,
    vcpu,
    cr3: BigInt(space.root),
    mappings: space.mappings,
    labels: program.labels,
    data,
    task: page,
    rounds: word(data[0] ?? -PAGE),
    switches: word(page + TASK.switches),
    systemCalls: word(page + TASK.systemCalls),
    faults: word(page + TASK.faults),
    breakpoints: word(page + TASK.breakpoints),
    debugExceptions: word(page + TASK.debugExceptions),
  }
}
