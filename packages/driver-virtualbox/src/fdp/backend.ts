import type { BackendWith, Capability, Detail } from '@microvmi/core/driver'
import type { FdpChannel } from './channel.ts'
import { FdpClient } from './client.ts'
import { FdpEvents } from './events.ts'
import type { RequestLayout } from './layout.ts'
import { takeOutLeftovers } from './leftovers.ts'
import { FdpMemory } from './memory.ts'
import { FdpMsrs, FdpRegisters } from './registers.ts'
import { FdpRunState } from './run-state.ts'

/** What every VM of a patched VirtualBox has. */
export const FDP_PROMISES = [
  'memory.read',
  'memory.write',
  'registers.read',
  'registers.write',
  'msr.read',
  'msr.write',
  'pause',
  'events.cr',
  'events.msr',
  'events.breakpoint',
  'events.memory',
  'events.singlestep',
] as const

/** One VM of a patched VirtualBox. */
export class FdpBackend implements BackendWith<(typeof FDP_PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor = 'VirtualBox with FDP'
  readonly vcpuCount: number
  readonly capabilities: readonly Capability[] = FDP_PROMISES
  readonly details: Readonly<Record<string, Detail>>
  readonly warnings: readonly string[]
  readonly memory: FdpMemory
  readonly registers: FdpRegisters
  readonly msr: FdpMsrs
  readonly running: FdpRunState
  readonly events: FdpEvents
  readonly #channel: FdpChannel
  readonly #client: FdpClient

  /** @param channel is this object's from now on, also when the constructor throws */
  constructor(channel: FdpChannel, layout: RequestLayout) {
    this.#channel = channel
    try {
      const client = new FdpClient(channel, layout)
      this.#client = client
      this.name = channel.name
      this.id = channel.name
      this.vcpuCount = client.vcpuCount()
      this.warnings = takeOutLeftovers(client)
      this.details = {
        memoryBytes: Number(client.memorySize()),
        ...(channel.server ? { pid: channel.server.pid } : {}),
      }
      this.memory = new FdpMemory(client)
      this.running = new FdpRunState(client)
      this.registers = new FdpRegisters(client, this.running)
      this.msr = new FdpMsrs(client, this.running)
      this.events = new FdpEvents(client, this.running)
    } catch (error) {
      channel.close()
      throw error
    }
  }

  release(): void {
    // Core has disarmed every breakpoint and ended every pause. What events that ended with an error have left in a VM
    // that is still there is taken out here; where that fails, too, the next session does it.
    const { failure } = this.events
    if (!failure || failure.code === 'VM_GONE') return
    this.#channel.notes.holds = false
    takeOutLeftovers(this.#client)
  }

  async close(): Promise<void> {
    this.#channel.close()
  }
}
