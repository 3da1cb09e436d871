import { type BackendWith, type Capability, type Detail, MicrovmiError } from '@microvmi/core/driver'
import { LiveMemory } from './memory.ts'
import type { LivePartition, Way } from './partition.ts'
import { LiveRegisters } from './registers.ts'
import { LiveRunState } from './run-state.ts'

/** What every live partition has. */
export const PROMISES = ['memory.read', 'memory.write', 'registers.read', 'registers.write', 'pause'] as const

/** What depends on the library. */
export const POSSIBLE = ['memory.regions'] as const

const NO_EVENTS =
  "Windows hands the intercepts of a partition to the process that created it only: no interface gives another's, " +
  'neither hvlib.dll nor vid.dll'

/** Partitions of this process that are open, by id: a second session would end the first one's pause. */
const open = new Set<string>()

/** A live partition of Hyper-V. */
export class HypervBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly vcpuCount: number
  readonly capabilities: readonly Capability[]
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly details: Readonly<Record<string, Detail>>
  readonly memory: LiveMemory
  readonly registers: LiveRegisters
  readonly running: LiveRunState
  readonly #partition: LivePartition

  /** @param partition is this object's from now on, also when the constructor throws */
  constructor(partition: LivePartition, way: Way, windows: string) {
    this.#partition = partition
    this.name = partition.name || partition.id
    this.id = partition.id
    this.hypervisor = `Hyper-V (Windows ${windows})`
    this.vcpuCount = partition.vcpuCount
    this.details = { way: `${way}.dll`, ...partition.details }
    try {
      const layout = partition.layout()
      this.capabilities = [...PROMISES, ...(typeof layout === 'string' ? [] : POSSIBLE)]
      this.lacks = { ...LACKS, ...(typeof layout === 'string' ? { 'memory.regions': layout } : {}) }
      this.memory = new LiveMemory(partition)
      this.registers = new LiveRegisters(partition)
    } catch (error) {
      partition.close()
      throw error
    }
    this.running = new LiveRunState(partition)
    open.add(this.id)
  }

  release(): void {
    // Core has ended its pause; each other call leaves the guest as it found it.
  }

  async close(): Promise<void> {
    open.delete(this.id)
    this.#partition.close()
  }
}

/** Throws `BUSY` while this process has the partition open. */
export function checkFree({ id, name }: { readonly id: string; readonly name: string }): void {
  if (!open.has(id)) return
  throw new MicrovmiError('BUSY', `'${name}' (${id}) is open in this process already: use that session, or close it`)
}

const LACKS: { readonly [Name in Capability]?: string } = {
  'memory.map': 'a mapping would outlive the VM, and show what Windows puts into its memory afterwards',
  'memory.access': NO_EVENTS,
  'memory.alloc': "adding memory is the VM's worker process's business alone",
  'msr.read': 'the hypervisor gives the registers that it names; those are in readRegisters',
  'msr.write': 'the hypervisor takes the registers that it names; those are in writeRegisters',
  inject: 'an exception for a guest can be put only by the process that created its partition',
  views: 'Hyper-V gives a partition no other view of its memory than its own',
  'events.cr': NO_EVENTS,
  'events.msr': NO_EVENTS,
  'events.breakpoint': NO_EVENTS,
  'events.int3': NO_EVENTS,
  'events.watchpoint': NO_EVENTS,
  'events.memory': NO_EVENTS,
  'events.singlestep': NO_EVENTS,
  'events.cpuid': NO_EVENTS,
  'events.descriptor': NO_EVENTS,
  'events.debug': NO_EVENTS,
  'events.hypercall': NO_EVENTS,
  'events.privcall': NO_EVENTS,
  'events.io': NO_EVENTS,
  'events.interrupt': NO_EVENTS,
  'events.lifecycle': NO_EVENTS,
}
