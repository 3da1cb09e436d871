import {
  type Backend,
  type Capability,
  type Injection,
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type RunBackend,
  type RunState,
  type ViewBackend,
} from '@microvmi/core/driver'
import { CAPABILITIES, capabilitiesWithout } from './capabilities.ts'
import { MockEvents } from './event-backend.ts'
import type { Connection, Host } from './host.ts'
import { MockMemory } from './memory-backend.ts'
import { MSR } from './msrs.ts'
import { checkRegisters, readRegisters, WRITABLE_REGISTERS, writeRegisters } from './registers.ts'
import type { Vcpu } from './vcpu.ts'

/** One session with a guest. */
export class MockBackend implements Backend, Connection {
  readonly hypervisor = 'microvmi mock 0.1'
  readonly memory: MockMemory
  readonly events: MockEvents
  readonly registers: Required<RegisterBackend>
  readonly msr: Required<MsrBackend>
  readonly running: RunBackend
  readonly views: ViewBackend
  readonly capabilities: readonly Capability[]
  readonly lacks: Readonly<Record<string, string>>
  readonly #host: Host
  readonly #createdViews = new Set<number>()
  readonly #closing: () => void

  /** @param closing called when the session ends. */
  constructor(host: Host, closing: () => void = () => {}) {
    this.#host = host
    this.#closing = closing
    const { lacking } = host.options
    this.capabilities = capabilitiesWithout(lacking)
    const missing = CAPABILITIES.filter((capability) => !this.capabilities.includes(capability))
    this.lacks = Object.fromEntries(missing.map((capability) => [capability, 'this guest was made without it']))
    this.memory = new MockMemory(host)
    this.events = new MockEvents(host, this)
    this.registers = registers(host)
    this.msr = msrs(host)
    this.running = running(host, this)
    this.views = this.#views()
    host.connections.add(this)
  }

  get name(): string {
    return this.#host.options.name
  }

  get id(): string {
    return this.#host.id
  }

  get vcpuCount(): number {
    return this.#host.machine.vcpuCount
  }

  get details() {
    const { seed, clock, speed } = this.#host.options
    return { access: 'in this process', seed, clock, speed }
  }

  inject(vcpu: number, injection: Injection): void {
    this.#host.exchange()
    const target = this.#host.machine.processor(vcpu).vcpu
    target.injections.push(injection)
    target.attention = true
  }

  gone(error: MicrovmiError): void {
    this.events.fail(error)
  }

  release(): void {
    const host = this.#host
    this.events.release()
    for (const view of this.#createdViews) this.#destroyView(view)
    for (const processor of host.machine.processors) processor.setView(0)
    this.memory.release()
    host.resume(this)
  }

  async close(): Promise<void> {
    this.#host.connections.delete(this)
    this.#closing()
  }

  #views(): ViewBackend {
    const host = this.#host
    const { machine } = host
    return {
      create: () => {
        host.exchange()
        const view = machine.views.create()
        this.#createdViews.add(view)
        return view
      },
      destroy: (view) => {
        host.exchange()
        this.#destroyView(view)
      },
      switch(view, vcpu) {
        host.exchange()
        machine.views.check(view)
        const concerned = vcpu === undefined ? machine.processors : [machine.processor(vcpu)]
        for (const processor of concerned) processor.setView(view)
      },
      remap(view, gfn, to) {
        host.exchange()
        machine.views.remap(view, gfn, to)
      },
    }
  }

  #destroyView(view: number): void {
    const { machine } = this.#host
    machine.views.destroy(view)
    this.#createdViews.delete(view)
    for (const processor of machine.processors) if (processor.vcpu.view === view) processor.setView(0)
  }
}

function registers(host: Host): Required<RegisterBackend> {
  return {
    writable: WRITABLE_REGISTERS,
    read(vcpu) {
      host.exchange()
      return readRegisters(host.machine.processor(vcpu).vcpu)
    },
    write(vcpu: number, changes: RegisterChanges) {
      host.exchange()
      checkRegisters(changes)
      const processor = host.machine.processor(vcpu)
      writeRegisters(processor.vcpu, changes)
      processor.resync()
    },
  }
}

function msrs(host: Host): Required<MsrBackend> {
  const known = (vcpu: number, index: number): Vcpu => {
    host.exchange()
    const state = host.machine.processor(vcpu).vcpu
    if (index === MSR.tsc || state.msrs.has(index)) return state
    const indexes = Object.values(MSR).map((one) => `0x${one.toString(16)}`)
    throw new MicrovmiError('UNSUPPORTED', `no MSR 0x${index.toString(16)} here; there are ${indexes.join(', ')}`)
  }
  return {
    read(vcpu, index) {
      const state = known(vcpu, index)
      return state.msrs.get(index) ?? state.tsc
    },
    write(vcpu, index, value) {
      const state = known(vcpu, index)
      if (index === MSR.tsc) state.tscOffset = value - BigInt(state.clock)
      else state.msrs.set(index, value)
    },
  }
}

function running(host: Host, session: object): RunBackend {
  return {
    pause() {
      host.exchange()
      host.pause(session)
    },
    resume() {
      host.exchange()
      host.resume(session)
    },
    state(): RunState {
      host.exchange()
      return host.machine.running ? 'running' : 'paused'
    },
    setState(state) {
      host.exchange()
      if (state === 'paused') host.pause()
      else host.resume()
    },
  }
}
