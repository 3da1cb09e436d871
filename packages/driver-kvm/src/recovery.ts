import type { GdbStub } from './gdb-stub.ts'
import type { Qmp } from './qmp.ts'
import type { QemuRunState } from './run-state.ts'

/**
 * Takes away what a process that was killed has left in the VM: its gdbstub, and breakpoints that would stop the guest
 * with nobody to let it go on. What it had just stopped goes on. Returns what to tell the user.
 */
export function recover(qmp: Qmp, stub: GdbStub, run: QemuRunState, vcpuCount: number): string | undefined {
  if (!stub.hasLeftover) return undefined
  // What a breakpoint has stopped; a user's own pause is `paused` (QEMU, qapi/run-state.json, RunState).
  const wasHeld = qmp.query('query-status').status === 'debug'
  run.throughStub((gdb) => {
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) gdb.removeAll(vcpu)
    gdb.letInterruptsIn(false)
  })
  if (wasHeld) qmp.execute('cont')
  return `a process that was killed had left its gdbstub here: its breakpoints were removed${wasHeld ? ', and the guest, which they held, goes on' : ''}`
}
