import type { RunBackend, RunState } from '@microvmi/core/driver'
import type { Qmp } from './qmp.ts'

/** Stopping and resuming by QMP. QEMU does not count: who stopped the VM is remembered here. */
export class QemuRunState implements RunBackend {
  readonly #qmp: Qmp
  #stoppedByUs = false

  constructor(qmp: Qmp) {
    this.#qmp = qmp
  }

  pause(): void {
    this.#stoppedByUs = this.state() === 'running'
    if (this.#stoppedByUs) this.#qmp.execute('stop')
  }

  resume(): void {
    if (!this.#stoppedByUs) return
    this.#stoppedByUs = false
    this.#qmp.execute('cont')
  }

  state(): RunState {
    return this.#qmp.query('query-status').running === true ? 'running' : 'paused'
  }

  setState(state: RunState): void {
    this.#qmp.execute(state === 'running' ? 'cont' : 'stop')
  }

  /** Does `work` with all vCPUs stopped, and leaves them as they were. */
  whileStopped<T>(work: () => T): T {
    if (this.state() === 'paused') return work()
    this.#qmp.execute('stop')
    try {
      return work()
    } finally {
      this.#qmp.execute('cont')
    }
  }
}
