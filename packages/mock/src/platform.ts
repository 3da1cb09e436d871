import type { Reply } from '@microvmi/core/driver'
import type { Breakpoints } from './breakpoints.ts'
import type { PhysicalMemory } from './physical-memory.ts'
import type { Stop, Vcpu } from './vcpu.ts'
import type { Views } from './views.ts'
import type { Occurrence, Watches } from './watches.ts'

/** What a vCPU finds around it: the machine's memory, devices, and whoever watches. */
export interface Platform {
  readonly memory: PhysicalMemory
  readonly views: Views
  readonly watches: Watches
  readonly breakpoints: Breakpoints
  readonly vcpuCount: number
  /** False once the guest has crashed or was shut down. */
  readonly alive: boolean
  /** The vCPU waits for the answer to this. Does not return: what is under way is left by a throw. */
  hold(
    vcpu: Vcpu,
    occurrence: Occurrence,
    armed: number[],
    manner: Stop['manner'],
    finish: (parts: Reply) => void,
  ): never
  /** The same for those that do not want the vCPU to wait. */
  report(vcpu: Vcpu, occurrence: Occurrence, armed: number[]): void
  /** Notes what the guest has done, watched or not. */
  note(vcpu: Vcpu, occurrence: Occurrence): void
  /** A vCPU cannot go on: an exception on the way to the handler of a double fault. */
  crash(vcpu: Vcpu): void
  /** Devices. `undefined`: nothing is at this port. */
  portRead(vcpu: Vcpu, port: number): number | undefined
  portWrite(port: number, value: number): void
}
