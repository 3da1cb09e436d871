import { MicrovmiError, type RunBackend, type RunState } from '@microvmi/core/driver'
import type { GdbStub } from './gdb-stub.ts'
import type { Stopping, VirtualBoxMachine } from './machine.ts'

/**
 * Pausing where the GDB stub is on: by the stub itself. A VM that its debugger has halted, and that is paused and
 * resumed as well, does not go on (VirtualBox 7.2).
 */
export class StubRunState implements RunBackend, Stopping {
  readonly #machine: VirtualBoxMachine
  readonly #stub: GdbStub

  constructor(machine: VirtualBoxMachine, stub: GdbStub) {
    this.#machine = machine
    this.#stub = stub
  }

  pause(): void {
    if (this.#stub.isHalted || this.#machine.state() === 'running') this.#stub.hold('pause')
  }

  resume(): void {
    this.#stub.letGo('pause')
  }

  state(): RunState {
    const state = this.#machine.state()
    return this.#stub.isHalted ? 'paused' : state
  }

  /** It stays when the stub's connection ends: so it is VirtualBox's own pause. */
  setState(state: RunState): void {
    if (this.#stub.isHalted) throw new MicrovmiError('BUSY', 'an event holds the VM: answer it first')
    this.#machine.setState(state)
  }

  whileStopped<T>(work: () => T): T {
    if (this.state() === 'paused') return work()
    this.#stub.hold('write')
    try {
      return work()
    } finally {
      this.#stub.letGo('write')
    }
  }
}
