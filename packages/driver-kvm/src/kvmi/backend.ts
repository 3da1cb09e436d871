import {
  type BackendWith,
  type Capability,
  type Detail,
  type Injection,
  type MemoryBackend,
  MicrovmiError,
} from '@microvmi/core/driver'
import { PageRights } from '@microvmi/page-rights'
import { Breakpoints } from './breakpoints.ts'
import type { PROMISES } from './capabilities.ts'
import type { Connection } from './connection.ts'
import { Controls } from './controls.ts'
import { KvmiEvents } from './event-backend.ts'
import { EventReplies } from './event-replies.ts'
import { KvmiMemory } from './guest-memory.ts'
import { type Hello, idOf, nameOf } from './handshake.ts'
import { askOffers, type Features } from './offers.ts'
import { pageAccess } from './page-access.ts'
import { KvmiMsrs, KvmiRegisters } from './registers.ts'
import { KvmiRunState } from './run-state.ts'
import { Stepper } from './stepper.ts'
import { Vcpus } from './vcpus.ts'
import { KvmiViews } from './views.ts'

/** Whose VM it is, and what happens when it is closed. */
export interface Origin {
  readonly hello: Hello
  /** Where QEMU has dialled in, for people. */
  readonly socket: string
  onClose(): void
}

/** One VM behind a KVMi connection. */
export class KvmiBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly capabilities: readonly Capability[]
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly details: Readonly<Record<string, Detail>>
  readonly memory: MemoryBackend & Required<Pick<MemoryBackend, 'layout'>>
  readonly registers: KvmiRegisters
  readonly msr: KvmiMsrs
  readonly running: KvmiRunState
  readonly events: KvmiEvents
  readonly views: KvmiViews
  readonly #connection: Connection
  readonly #origin: Origin
  readonly #vcpus: Vcpus
  readonly #rights: PageRights
  readonly #breakpoints: Breakpoints
  readonly #replies: EventReplies

  /** @param connection is this object's from now on, also when the constructor throws */
  constructor(connection: Connection, origin: Origin) {
    this.#connection = connection
    this.#origin = origin
    try {
      const { capabilities, lacks } = askOffers(connection, askFeatures(connection))
      this.capabilities = capabilities
      this.lacks = lacks
      const vcpus = new Vcpus(connection)
      this.#vcpus = vcpus
      askForNotices(connection)
    } catch (error) {
      connection.close(closed())
      origin.onClose()
      throw error
    }
    const { hello, socket } = origin
    const vcpus = this.#vcpus
    this.name = nameOf(hello)
    this.id = idOf(hello)
    this.hypervisor = `KVM, KVMi ${connection.generation.name}`
    this.details = { socket, generation: connection.generation.name, startTime: Number(hello.startTime) }
    const memory = new KvmiMemory(connection)
    const registers = new KvmiRegisters(connection, vcpus)
    const controls = new Controls(connection, vcpus)
    const rights = new PageRights(pageAccess(connection, memory))
    const breakpoints = new Breakpoints(memory, registers)
    const stepper = new Stepper(connection, vcpus, controls)
    const views = new KvmiViews(connection, vcpus, rights)
    const replies = new EventReplies({ connection, vcpus, registers, rights, views, stepper, breakpoints })
    const parts = { connection, vcpus, controls, rights, breakpoints, stepper, replies }
    this.memory = memoryWith(memory, rights)
    this.registers = registers
    this.msr = new KvmiMsrs(registers)
    this.running = new KvmiRunState(connection, vcpus)
    this.views = views
    this.#rights = rights
    this.#breakpoints = breakpoints
    this.#replies = replies
    this.events = new KvmiEvents(parts, (error) => this.#lost(error))
  }

  get vcpuCount(): number {
    return this.#vcpus.count
  }

  inject(vcpu: number, injection: Injection): void {
    this.#replies.inject(vcpu, injection)
  }

  release(): void {
    if (this.#connection.hasEnded) return
    this.#restore()
  }

  async close(): Promise<void> {
    this.#connection.close(closed())
    this.#origin.onClose()
  }

  /** Takes everything of ours out of the guest; goes on where one part fails, and throws the first failure. */
  #restore(): void {
    const failures: unknown[] = []
    const steps = [
      () => this.events.release(),
      () => this.#breakpoints.release(),
      () => this.views.release(),
      () => this.#rights.release(),
      () => this.#vcpus.resume(),
    ]
    for (const step of steps) {
      try {
        step()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** The connection has ended, or has to: an unhook waits until it is closed, with nothing of ours in the guest. */
  #lost(error: MicrovmiError): void {
    try {
      if (!this.#connection.hasEnded) this.#restore()
    } catch (further) {
      if (!(further instanceof MicrovmiError)) throw further
    } finally {
      const isGone = error.code === 'VM_GONE'
      this.#connection.close(isGone ? error : new MicrovmiError('VM_GONE', error.message, { cause: error }))
      this.#origin.onClose()
    }
  }
}

function closed(): MicrovmiError {
  return new MicrovmiError('VM_GONE', 'the connection was closed')
}

function memoryWith(memory: KvmiMemory, rights: PageRights): Required<Pick<MemoryBackend, 'layout'>> & MemoryBackend {
  return {
    patches: memory.patches,
    read: (address, into) => memory.read(address, into),
    readMany: (reads, failed) => memory.readMany(reads, failed),
    write: (address, from) => memory.write(address, from),
    layout: () => memory.layout(),
    setAccess: (address, length, access, view) => rights.setAccess(address, length, access, view),
    getAccess: (address, view) => rights.getAccess(address, view),
  }
}

/**
 * kvmi_get_version_reply: behind two words, in A u8 spp, vmfunc, eptp, ve; in C u8 singlestep. Kernel 5.0 and the
 * middle of C's series tell none.
 */
function askFeatures(connection: Connection): Features {
  const { error, view, start, length } = connection.ask((message) => connection.requests.getVersion(message), 8)
  if (error !== 0) throw new MicrovmiError('PROTOCOL', `KVMi does not tell its version any more (error ${error})`)
  if (length < 16) return { views: false, singlestep: true }
  const isC = connection.generation.eventHeaderLength > 0
  return isC
    ? { views: false, singlestep: view.getUint8(start + 8) !== 0 }
    : { views: view.getUint8(start + 10) !== 0, singlestep: true }
}

/** Unhooking and new vCPUs are told to those who ask; a QEMU that does not allow it goes without. */
function askForNotices(connection: Connection): void {
  const { generation, requests } = connection
  if (generation.commands.controlVmEvents === undefined) return
  const names = (['unhook', 'createVcpu'] as const).filter((name) => generation.events[name] !== undefined)
  connection.askAll(
    names.length,
    (message, index) => requests.controlVmEvents(message, names[index] ?? 'unhook', true),
    () => {},
  )
}
