import type { EventKind, EventKinds, Registers } from '@microvmi/core/driver'
import type { Breakpoints } from '../breakpoints.ts'
import type { CodeMemory } from '../code-memory.ts'
import type { Gdb } from '../gdb.ts'
import type { GdbLayout } from '../gdb-registers.ts'
import type { StopReply } from '../stop-reply.ts'

/** The VM has stopped; all that is known of the vCPU that has caused it. */
export interface Stop {
  readonly vcpu: number
  readonly rip: bigint
  /** Its registers in the stub's order (see `GdbLayout`). */
  readonly bytes: Buffer
  readonly watch: StopReply['watch']
  /** It has executed one instruction; `asked`: because a reply wanted it to. */
  readonly step: 'none' | 'asked' | 'every'
}

/** What a stop means to a watcher. */
export type Sight<K extends EventKind = EventKind> = {
  [P in K]: { readonly kind: P; readonly complete: boolean; readonly fields: EventKinds[P]['event'] }
}[K]

/** The gdbstub, while it is attached. */
export interface Attached {
  readonly gdb: Gdb
  readonly layout: GdbLayout
}

/** What watchers work with, while a debugger is attached. */
export interface Debugger extends Attached {
  readonly points: Breakpoints
  readonly code: CodeMemory
  readonly onKvm: boolean
  readonly vcpuCount: number
  /** All registers of a vCPU of a VM that is stopped, from QEMU itself: one exchange more. */
  readonly registers: (vcpu: number) => Registers
  /** For what happens on the event loop of its own accord. */
  readonly whileStopped: (work: () => void) => void
}

/** What one request for events has set in the guest, and what it makes of a stop. The VM is stopped for every call. */
export interface Watcher {
  /** Throws, with nothing set, what cannot be. */
  arm(debugging: Debugger): void
  disarm(debugging: Debugger): void
  /** The event that a stop at one of its points is (for steps: any step's end), if it is one. */
  see(stop: Stop, debugging: Debugger): Sight | undefined
  /** The guest was reset: its code and its tables will be others. */
  reset?(debugging: Debugger): void
}
