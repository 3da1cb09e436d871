import type { BackendWith, Capability, Detail } from '@microvmi/core/driver'
import { PROMISES, PV_LACKS } from './capabilities.ts'
import type { DomainInfo } from './domain-info.ts'
import { ForeignMemory } from './foreign-memory.ts'
import { OpenDomain } from './open-domain.ts'
import { PvMemory } from './pv-memory.ts'
import { PvMemoryMap } from './pv-memory-map.ts'
import { PvMsrs, PvRegisters } from './pv-registers.ts'
import { XenRunState } from './run-state.ts'
import type { Xen } from './xen.ts'

/** One PV domain of 64 bits. Its physical addresses are machine addresses: those of its CR3 and its page tables. */
export class PvBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly capabilities: readonly Capability[] = PROMISES
  readonly lacks: { readonly [Name in Capability]?: string } = PV_LACKS
  readonly details: Readonly<Record<string, Detail>>
  readonly memory: PvMemory
  readonly registers: PvRegisters
  readonly msr: PvMsrs
  readonly running: XenRunState
  readonly #xen: Xen
  readonly #domain: OpenDomain
  readonly #vcpuCount: number

  /** @param xen is this object's from the end of the constructor on */
  constructor(xen: Xen, info: DomainInfo) {
    const { domid, uuid, vcpus } = info
    const domain = new OpenDomain(xen, info)
    this.#xen = xen
    this.#domain = domain
    this.#vcpuCount = vcpus
    this.name = domain.name
    this.id = uuid
    this.hypervisor = xen.version
    this.details = { domid, type: 'PV' }
    this.memory = new PvMemory(xen, domid, new ForeignMemory(xen, domid), new PvMemoryMap(xen, domid), domain)
    this.registers = new PvRegisters(xen, domid)
    this.msr = new PvMsrs(this.registers)
    this.running = new XenRunState(xen, domid, () => domain.info().isPaused)
  }

  /** A domain's vCPUs are made with it; of some it may be that they are not online. */
  get vcpuCount(): number {
    this.#domain.glance()
    return this.#vcpuCount
  }

  /** Nothing of ours is in the guest. */
  release(): void {}

  async close(): Promise<void> {
    this.memory.close()
    this.#domain.close()
    this.#xen.close()
  }
}
