import type { BackendWith, Capability, Detail, Injection, MemoryBackend } from '@microvmi/core/driver'
import { PageRights } from '@microvmi/page-rights'
import { Allocation } from './allocation.ts'
import { Breakpoints } from './breakpoints.ts'
import { capabilitiesOf, type PROMISES } from './capabilities.ts'
import type { DomainInfo } from './domain-info.ts'
import { XenEvents } from './events.ts'
import { ForeignMemory } from './foreign-memory.ts'
import { GuestMemory } from './guest-memory.ts'
import { Injector } from './injection.ts'
import { MemoryMap } from './memory-map.ts'
import { answerFor } from './monitor.ts'
import { OpenDomain } from './open-domain.ts'
import { hasPageAccess, pageAccess } from './page-access.ts'
import { HvmMsrs, HvmRegisters } from './registers.ts'
import { XenRunState } from './run-state.ts'
import { SessionNote } from './session-note.ts'
import { kindsOf } from './settings.ts'
import { Stepping, stopStepping } from './stepping.ts'
import { turnOffViews, viewStateOf, XenViews } from './views.ts'
import type { Xen } from './xen.ts'

/** One HVM or PVH domain. */
export class XenBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly capabilities: readonly Capability[]
  readonly warnings: readonly string[]
  readonly details: Readonly<Record<string, Detail>>
  readonly memory: Required<Pick<MemoryBackend, 'write' | 'layout' | 'map'>> & MemoryBackend
  readonly registers: HvmRegisters
  readonly msr: HvmMsrs
  readonly running: XenRunState
  readonly events: XenEvents
  readonly views: XenViews
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly #xen: Xen
  readonly #injector: Injector
  readonly #guestMemory: GuestMemory
  readonly #allocation: Allocation
  readonly #domain: OpenDomain
  readonly #vcpuCount: number

  /**
   * @param xen is this object's from the end of the constructor on
   * @param spin microseconds for which the next event is looked for
   */
  constructor(xen: Xen, info: DomainInfo, spin: number) {
    const { domid, uuid, vcpus } = info
    this.#vcpuCount = vcpus
    this.#xen = xen
    const domain = new OpenDomain(xen, info)
    this.#domain = domain
    this.name = domain.name
    this.id = uuid
    this.hypervisor = xen.version
    this.details = { domid, type: info.hasDevices ? 'HVM' : 'PVH' }
    const foreign = new ForeignMemory(xen, domid)
    const memory = new GuestMemory(foreign, new MemoryMap(xen, domid, foreign), domain)
    this.#guestMemory = memory
    this.#allocation = new Allocation(xen, domid, memory)
    this.registers = new HvmRegisters(xen, domid)
    this.msr = new HvmMsrs(this.registers)
    this.running = new XenRunState(xen, domid, () => domain.info().isPaused)
    this.#injector = new Injector(xen, domid)
    const note = new SessionNote(uuid)
    const breakpoints = new Breakpoints(memory, this.registers, note)
    const kinds = kindsOf(xen, info)
    const canStep = kinds.includes('singlestep')
    try {
      this.warnings = recover(xen, info, note, breakpoints, canStep)
    } catch (error) {
      memory.close()
      throw error
    }
    const state = viewStateOf(xen, domid)
    const found = capabilitiesOf({ kinds, hasPageAccess: hasPageAccess(xen, domid), views: state })
    this.capabilities = found.capabilities
    this.lacks = found.lacks
    const views = new XenViews(xen, domid, state, note, () => vcpus)
    const rights = new PageRights(pageAccess(xen, domid, memory, views))
    views.useRights(rights)
    this.views = views
    const stepping = new Stepping(xen, domid, views)
    const { registers } = this
    const answers = { registers, breakpoints, injector: this.#injector, stepping, rights, views, canStep }
    this.events = new XenEvents(xen, { ...answers, domid, note, vcpus: () => vcpus, spin, gone: () => domain.gone() })
    this.memory = memoryWith(memory, rights, this.events, this.#allocation)
  }

  inject(vcpu: number, injection: Injection): void {
    this.#injector.inject(vcpu, injection)
  }

  /** A domain's vCPUs are made with it; of some it may be that they are not online. */
  get vcpuCount(): number {
    this.#domain.glance()
    return this.#vcpuCount
  }

  release(): void {
    try {
      this.events.release()
    } finally {
      if (!this.#domain.gone()) this.#allocation.release()
    }
  }

  async close(): Promise<void> {
    this.events.close()
    this.#injector.close()
    this.#guestMemory.close()
    this.#domain.close()
    this.#xen.close()
  }
}

function memoryWith(
  memory: GuestMemory,
  rights: PageRights,
  events: XenEvents,
  allocation: Allocation,
): XenBackend['memory'] {
  return {
    patches: memory.patches,
    read: (address, into) => memory.read(address, into),
    readUint64: (address) => memory.readUint64(address),
    readMany: (reads, failed) => memory.readMany(reads, failed),
    write: (address, from) => memory.write(address, from),
    layout: () => memory.layout(),
    pieces: (options) => memory.pieces(options),
    map: (address, length) => memory.map(address, length),
    unmap: (window) => memory.unmap(window),
    setAccess: (address, length, access, view) => events.setAccess(address, length, access, view),
    getAccess: (address, view) => rights.getAccess(address, view),
    allocate: () => allocation.allocate(),
    free: (address) => allocation.free(address),
  }
}

/** Undoes what a killed session of ours has left in the guest; what it was, for the user. */
function recover(xen: Xen, info: DomainInfo, note: SessionNote, breakpoints: Breakpoints, canStep: boolean): string[] {
  const left = note.leftBehind()
  if (!left) return []
  const { domid, vcpus } = info
  xen.libraries.xc.domain_pause(xen.handle, domid)
  try {
    breakpoints.restore(left)
    if (canStep) stopStepping(xen, domid, vcpus)
    answerFor(xen, domid, vcpus)
    if (viewStateOf(xen, domid) === 'on') turnOffViews(xen, domid)
  } finally {
    xen.libraries.xc.domain_unpause(xen.handle, domid)
  }
  note.remove()
  return [`a session that was killed had left ${left.length} breakpoints and its monitor on: they were taken out`]
}
