import { type BackendWith, type Capability, type Detail, type Injection, MicrovmiError } from '@microvmi/core/driver'
import { Breakpoints } from './breakpoints.ts'
import { POSSIBLE, PROMISES } from './capabilities.ts'
import type { DomainInfo } from './domain-info.ts'
import { XenEvents } from './events.ts'
import { ForeignMemory } from './foreign-memory.ts'
import { GuestMemory } from './guest-memory.ts'
import { Injector } from './injection.ts'
import { MemoryMap } from './memory-map.ts'
import { answerFor } from './monitor.ts'
import { HvmMsrs, HvmRegisters } from './registers.ts'
import { XenRunState } from './run-state.ts'
import { SessionNote } from './session-note.ts'
import { kindsOf } from './settings.ts'
import type { Xen } from './xen.ts'

/** Milliseconds for which a domain that was there is taken to be there: its pages outlive it in our mappings. */
const FRESH = 20

/** One HVM or PVH domain. */
export class XenBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly capabilities: readonly Capability[]
  readonly warnings: readonly string[]
  readonly details: Readonly<Record<string, Detail>>
  readonly memory: GuestMemory
  readonly registers: HvmRegisters
  readonly msr: HvmMsrs
  readonly running: XenRunState
  readonly events: XenEvents
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly #xen: Xen
  readonly #injector: Injector
  readonly #domid: number
  readonly #uuid: string
  #seenAt = 0

  /** @param xen is this object's from the end of the constructor on */
  constructor(xen: Xen, info: DomainInfo) {
    const { domid, uuid } = info
    this.#xen = xen
    this.#domid = domid
    this.#uuid = uuid
    this.name = xen.nameOf(domid)
    this.id = uuid
    this.hypervisor = xen.version
    this.details = { domid, type: info.hasDevices ? 'HVM' : 'PVH' }
    const foreign = new ForeignMemory(xen, domid)
    this.memory = new GuestMemory(foreign, new MemoryMap(xen, domid, foreign), () => this.#look())
    this.registers = new HvmRegisters(xen, domid)
    this.msr = new HvmMsrs(this.registers)
    this.running = new XenRunState(xen, domid, () => this.#info().isPaused)
    this.#injector = new Injector(xen, domid)
    const note = new SessionNote(uuid)
    const breakpoints = new Breakpoints(this.memory, this.registers, note)
    try {
      this.warnings = recover(xen, info, note, breakpoints)
    } catch (error) {
      this.memory.close()
      throw error
    }
    this.events = new XenEvents(xen, {
      domid,
      note,
      vcpus: () => this.vcpuCount,
      registers: this.registers,
      breakpoints,
      injector: this.#injector,
      gone: () => this.#gone(),
    })
    const kinds = new Set<string>(kindsOf(xen, domid).map((kind) => `events.${kind}`))
    const isThere = (name: Capability) => kinds.size > 0 && (!name.startsWith('events.') || kinds.has(name))
    this.capabilities = [...PROMISES, ...POSSIBLE.filter(isThere)]
    const lack = 'this Xen has no such monitor for this domain and processor'
    this.lacks = Object.fromEntries(POSSIBLE.map((name) => [name, lack]))
  }

  inject(vcpu: number, injection: Injection): void {
    this.#injector.inject(vcpu, injection)
  }

  get vcpuCount(): number {
    return this.#info().vcpus
  }

  release(): void {
    // Core has ended its pause; else each call leaves the guest as it found it.
  }

  async close(): Promise<void> {
    this.events.close()
    this.#injector.close()
    this.memory.close()
    this.#xen.close()
  }

  /** Why the domain is of no use any more, if so. */
  #gone(): MicrovmiError | undefined {
    try {
      this.#info()
      return undefined
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'VM_GONE') return error
      throw error
    }
  }

  /** Throws when the domain has gone; asks Xen now and then. */
  #look(): void {
    if (performance.now() - this.#seenAt > FRESH) this.#info()
  }

  /** What Xen tells now. A domain's number may be another one's by now. */
  #info(): DomainInfo {
    const info = this.#xen.domain(this.#domid)
    if (!info || info.uuid !== this.#uuid || info.isDying) {
      throw new MicrovmiError('VM_GONE', `domain ${this.#domid} (${this.name}) has been destroyed`)
    }
    this.#seenAt = performance.now()
    return info
  }
}

/** Undoes what a killed session of ours has left in the guest; what it was, for the user. */
function recover(xen: Xen, info: DomainInfo, note: SessionNote, breakpoints: Breakpoints): string[] {
  const left = note.leftBehind()
  if (!left) return []
  xen.libraries.xc.domain_pause(xen.handle, info.domid)
  try {
    breakpoints.restore(left)
    answerFor(xen, info.domid, info.vcpus)
  } finally {
    xen.libraries.xc.domain_unpause(xen.handle, info.domid)
  }
  note.remove()
  return [`a session that was killed had left ${left.length} breakpoints and its monitor on: they were taken out`]
}
