import type { BackendWith, Capability, Detail, RunBackend } from '@microvmi/core/driver'
import { ConsoleMemory } from './console-memory.ts'
import type { Debugger } from './debugger.ts'
import { GdbEvents } from './gdb-events.ts'
import type { MachineFacts, VirtualBoxMachine } from './machine.ts'
import { VirtualBoxMemory } from './memory.ts'
import { VirtualBoxMsrs, VirtualBoxRegisters } from './registers.ts'
import { StubRunState } from './stub-run-state.ts'

/** What every VM of the stock product has. */
export const VIRTUALBOX_PROMISES = ['memory.regions', 'registers.read', 'msr.read', 'pause'] as const

/** What a debugger gives, whichever it is. */
const BY_DEBUGGER = ['memory.read', 'memory.write', 'registers.write'] as const

/** What the GDB stub gives beyond. */
const BY_STUB = ['events.breakpoint', 'events.singlestep', 'reply.registers', 'reply.step'] as const

/** What needs the VM's debugger. */
export const VIRTUALBOX_POSSIBLE = [...BY_DEBUGGER, ...BY_STUB] as const

/** How a VM is reached. */
export interface Access {
  /** VirtualBox's. */
  readonly version: string
  /** For core dumps, while they are read. */
  readonly directory: string
  readonly timeout: number
}

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
  readonly running: RunBackend
  readonly events?: GdbEvents
  readonly #debugger: Debugger

  /** @param found its connection is this object's from now on */
  constructor(
    machine: VirtualBoxMachine,
    facts: MachineFacts,
    found: Debugger,
    { version, directory, timeout }: Access,
  ) {
    const line = found.sort === 'none' ? undefined : found.line
    this.#debugger = found
    this.name = facts.name
    this.id = machine.uuid
    this.hypervisor = `VirtualBox ${version}`
    this.vcpuCount = facts.vcpuCount
    this.memory = new VirtualBoxMemory(machine, line && new ConsoleMemory(line), directory, timeout)
    const running = found.sort === 'gdb' ? new StubRunState(machine, found.line) : machine
    this.running = running
    this.registers = new VirtualBoxRegisters(machine, running, line)
    this.msr = new VirtualBoxMsrs(this.registers)
    if (found.sort === 'gdb') this.events = new GdbEvents(found.line, this.registers, facts.vcpuCount)
    this.capabilities = [
      ...VIRTUALBOX_PROMISES,
      ...(found.sort === 'none' ? [] : BY_DEBUGGER),
      ...(found.sort === 'gdb' ? BY_STUB : []),
    ]
    this.lacks = lacksOf(found)
    this.details = {
      memoryMiB: facts.memoryMiB,
      debugger: found.sort,
      ...(found.sort === 'none' ? {} : { address: found.where }),
    }
    this.warnings = warningsOf(facts, found)
  }

  release(): void {
    // Core has ended every pause, and disarmed every breakpoint; the stub's connection may hold the VM still.
    this.events?.release()
  }

  async close(): Promise<void> {
    if (this.#debugger.sort !== 'none') this.#debugger.line.close()
  }
}

function warningsOf(facts: MachineFacts, found: Debugger): string[] {
  const leftovers = found.sort === 'gdb' ? found.line.leftovers : 0
  return [
    ...(facts.isPaused ? ['it is paused: by its user, or by a process that was killed while it held it'] : []),
    ...(leftovers > 0 ? [`breakpoints of a process that was killed were taken out: ${leftovers}`] : []),
  ]
}

function lacksOf(found: Debugger): { readonly [Name in Capability]?: string } {
  const because = (names: readonly Capability[], reason: string) =>
    Object.fromEntries(names.map((name) => [name, reason]))
  if (found.sort === 'none') return because(VIRTUALBOX_POSSIBLE, found.reason)
  if (found.sort === 'gdb') return {}
  return because(
    BY_STUB,
    'the debug console tells no events: give the VM the GDB stub in its place, while it is off ' +
      '(VBoxManage modifyvm … --guest-debug-provider gdb)',
  )
}
