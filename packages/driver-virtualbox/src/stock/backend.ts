import type { BackendWith, Capability, Detail } from '@microvmi/core/driver'
import { ConsoleMemory } from './console-memory.ts'
import type { DebugConsole } from './debug-console.ts'
import type { VirtualBoxMachine } from './machine.ts'
import { VirtualBoxMemory } from './memory.ts'
import { VirtualBoxMsrs, VirtualBoxRegisters } from './registers.ts'
import { numberIn } from './vboxmanage-output.ts'

/** What every VM of the stock product has. */
export const VIRTUALBOX_PROMISES = ['memory.regions', 'registers.read', 'msr.read', 'pause'] as const

/** What needs the VM's debug console. */
export const VIRTUALBOX_POSSIBLE = ['memory.read', 'memory.write', 'registers.write'] as const

/** VirtualBox's own limit (include/VBox/param.h, VMM_MAX_CPU_COUNT). */
const MOST_VCPUS = 64

/** How the VM's debugger was found, or why not. */
export type ConsoleFound =
  | { readonly console: DebugConsole; readonly where: string }
  | { readonly console: undefined; readonly reason: string }

/** One VM of the stock product. */
export class VirtualBoxBackend implements BackendWith<(typeof VIRTUALBOX_PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly vcpuCount: number
  readonly capabilities: readonly Capability[]
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly details: Readonly<Record<string, Detail>>
  readonly warnings: readonly string[]
  readonly memory: VirtualBoxMemory
  readonly registers: VirtualBoxRegisters
  readonly msr: VirtualBoxMsrs
  readonly running: VirtualBoxMachine
  readonly #console: DebugConsole | undefined

  /** @param found its console is this object's from now on, also when the constructor throws */
  constructor(
    machine: VirtualBoxMachine,
    found: ConsoleFound,
    info: { readonly version: string; readonly directory: string; readonly timeout: number },
  ) {
    const { console } = found
    this.#console = console
    try {
      const facts = machine.info()
      this.name = facts.get('name') ?? machine.uuid
      this.id = machine.uuid
      this.hypervisor = `VirtualBox ${info.version}`
      this.vcpuCount = numberIn(facts, 'cpus', MOST_VCPUS)
      const memory = console && new ConsoleMemory(console)
      this.memory = new VirtualBoxMemory(machine, memory, info.directory, info.timeout)
      this.registers = new VirtualBoxRegisters(machine, console)
      this.msr = new VirtualBoxMsrs(this.registers)
      this.running = machine
      this.capabilities = console ? [...VIRTUALBOX_PROMISES, ...VIRTUALBOX_POSSIBLE] : VIRTUALBOX_PROMISES
      const reason = found.console ? '' : found.reason
      this.lacks = Object.fromEntries(VIRTUALBOX_POSSIBLE.map((name) => [name, reason]))
      this.details = {
        memoryMiB: numberIn(facts, 'memory', 2 ** 24),
        console: found.console ? found.where : 'none',
      }
      const isPaused = facts.get('VMState') === 'paused'
      this.warnings = isPaused ? ['it is paused: by its user, or by a process that was killed while it held it'] : []
    } catch (error) {
      console?.close()
      throw error
    }
  }

  release(): void {
    // Core has ended every pause; nothing else of ours is in the guest between two calls.
  }

  async close(): Promise<void> {
    this.#console?.close()
  }
}
