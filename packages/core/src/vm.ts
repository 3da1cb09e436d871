import type { Backend } from './backend.ts'
import type { Capability, PauseLease, RunState, Views, VmBase, VmInfo } from './capability.ts'
import { checkChanges, checkInjection, checkUint32, checkVcpu, checkWord } from './checks.ts'
import { MicrovmiError } from './errors.ts'
import { explainLack } from './explain.ts'
import { GuestMemory } from './guest-memory.ts'
import { Intercepts } from './intercepts.ts'
import type { Listener } from './listener.ts'
import { PauseLeases } from './pause.ts'
import type { Injection, RegisterChanges, RegisterName, Registers } from './registers.ts'
import { partOf, Session } from './session.ts'

/** Called when a Vm no longer needs to be released. */
export type Forget = () => void

/** Every member that core knows, whatever the backend: the type an app sees shows only those it was promised. */
export class OpenVm implements VmBase {
  readonly #session: Session
  readonly #intercepts: Intercepts
  readonly #memory: GuestMemory | undefined
  readonly #leases: PauseLeases | undefined
  readonly #closing: Forget[] = []
  #closed: Promise<void> | undefined

  constructor(scheme: string, backend: Backend) {
    const session = new Session(scheme, backend)
    this.#session = session
    this.#intercepts = new Intercepts(session)
    this.#memory = backend.memory && new GuestMemory(session, backend.memory)
    this.#leases = backend.running && new PauseLeases(backend.running)
    extend(this, session)
  }

  get name(): string {
    return this.#session.backend.name
  }

  get id(): string {
    return this.#session.backend.id
  }

  get vcpuCount(): number {
    this.#session.check()
    return this.#session.backend.vcpuCount
  }

  get info(): VmInfo {
    const { scheme, backend } = this.#session
    const { hypervisor, details = {}, warnings = [] } = backend
    return { driver: scheme, hypervisor, details, warnings }
  }

  get capabilities(): ReadonlySet<Capability> {
    return this.#session.capabilities
  }

  get closed(): boolean {
    return this.#session.closed
  }

  get memory(): GuestMemory {
    return partOf(this.#memory, 'memory.read', this.#session)
  }

  get views(): Views {
    this.#session.need('views')
    const session = this.#session
    const views = partOf(session.backend.views, 'views', session)
    return {
      create() {
        session.check()
        return views.create()
      },
      destroy(view) {
        session.check()
        checkUint32(view, 'a view')
        views.destroy(view)
      },
      switch(view, vcpu) {
        session.check()
        checkUint32(view, 'a view')
        if (vcpu !== undefined) checkVcpu(vcpu, session)
        views.switch(view, vcpu)
      },
      remap(view, gfn, to) {
        session.check()
        checkUint32(view, 'a view')
        views.remap(view, gfn, to)
      },
    }
  }

  readRegisters(vcpu: number): Registers {
    this.#session.need('registers.read')
    checkVcpu(vcpu, this.#session)
    return partOf(this.#session.backend.registers, 'registers.read', this.#session).read(vcpu)
  }

  get writableRegisters(): ReadonlySet<RegisterName> {
    this.#session.need('registers.write')
    return partOf(this.#session.backend.registers?.writable, 'registers.write', this.#session)
  }

  writeRegisters(vcpu: number, changes: RegisterChanges): void {
    this.#session.need('registers.write')
    checkVcpu(vcpu, this.#session)
    checkChanges(changes, this.#session)
    const registers = partOf(this.#session.backend.registers, 'registers.write', this.#session)
    partOf(registers.write?.bind(registers), 'registers.write', this.#session)(vcpu, changes)
  }

  readMsr(vcpu: number, index: number): bigint {
    this.#session.need('msr.read')
    checkVcpu(vcpu, this.#session)
    checkUint32(index, "an MSR's index")
    return partOf(this.#session.backend.msr, 'msr.read', this.#session).read(vcpu, index)
  }

  writeMsr(vcpu: number, index: number, value: bigint): void {
    this.#session.need('msr.write')
    checkVcpu(vcpu, this.#session)
    checkUint32(index, "an MSR's index")
    checkWord(value, "an MSR's value")
    const msr = partOf(this.#session.backend.msr, 'msr.write', this.#session)
    partOf(msr.write?.bind(msr), 'msr.write', this.#session)(vcpu, index, value)
  }

  pause(): PauseLease {
    this.#session.need('pause')
    return partOf(this.#leases, 'pause', this.#session).take()
  }

  runState(): RunState {
    this.#session.need('pause')
    return partOf(this.#session.backend.running, 'pause', this.#session).state()
  }

  setRunState(state: RunState): void {
    this.#session.need('pause')
    if (state !== 'running' && state !== 'paused') {
      throw new MicrovmiError('BAD_ARGUMENT', `a run state is 'running' or 'paused', not '${String(state)}'`)
    }
    if (this.#leases && this.#leases.held > 0) {
      throw new MicrovmiError('BUSY', `${this.#leases.held} pause lease(s) are held: end them before setRunState()`)
    }
    partOf(this.#session.backend.running, 'pause', this.#session).setState(state)
  }

  inject(vcpu: number, injection: Injection): void {
    this.#session.need('inject')
    checkVcpu(vcpu, this.#session)
    checkInjection(injection)
    const { backend } = this.#session
    partOf(backend.inject?.bind(backend), 'inject', this.#session)(vcpu, injection)
  }

  intercept(...what: readonly unknown[]): Listener {
    return this.#intercepts.create(what)
  }

  release(): void {
    if (this.#session.closed) return
    const { backend } = this.#session
    const failures = attempt([
      () => this.#intercepts.closeAll(),
      () => this.#leases?.endAll(),
      () => {
        this.#session.closed = true
        backend.release()
      },
      ...this.#closing,
    ])
    if (failures.length > 0) throw failures[0]
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Has `forget` called once the guest was released. */
  onRelease(forget: Forget): void {
    this.#closing.push(forget)
  }

  [explainLack](capability: Capability): MicrovmiError {
    return this.#session.lack(capability)
  }

  async #close(): Promise<void> {
    const failures = attempt([() => this.release()])
    await this.#session.backend.close()
    if (failures.length > 0) throw failures[0]
  }
}

/**
 * Does all of the steps, whichever fail. That the VM has gone is no failure here: then there is nothing to undo.
 */
function attempt(steps: readonly (() => void)[]): unknown[] {
  const failures: unknown[] = []
  for (const step of steps) {
    try {
      step()
    } catch (error) {
      if (!(error instanceof MicrovmiError && error.code === 'VM_GONE')) failures.push(error)
    }
  }
  return failures
}

/** Adds the members of capabilities that core does not know. */
function extend(vm: OpenVm, session: Session): void {
  for (const members of Object.values(session.backend.extensions ?? {})) {
    for (const [name, member] of Object.entries(members as object)) {
      if (name in vm) {
        throw new MicrovmiError(
          'CONTRACT_MISMATCH',
          `driver '${session.scheme}' brings a member '${name}', which every Vm has: report this to its authors`,
        )
      }
      const value =
        typeof member === 'function'
          ? (...args: unknown[]): unknown => {
              session.check()
              return Reflect.apply(member, members, args)
            }
          : member
      Object.defineProperty(vm, name, { value, enumerable: true })
    }
  }
}
