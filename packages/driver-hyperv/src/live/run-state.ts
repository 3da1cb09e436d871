import type { RunBackend, RunState } from '@microvmi/core/driver'
import type { LivePartition } from './partition.ts'

/** Whether a live partition runs. */
export class LiveRunState implements RunBackend {
  readonly #partition: LivePartition
  #isOurs = false

  constructor(partition: LivePartition) {
    this.#partition = partition
  }

  pause(): void {
    if (this.#partition.isSuspended()) return
    this.#partition.suspend()
    this.#isOurs = true
  }

  resume(): void {
    if (!this.#isOurs) return
    this.#partition.resume()
    this.#isOurs = false
  }

  state(): RunState {
    return this.#partition.isSuspended() ? 'paused' : 'running'
  }

  setState(state: RunState): void {
    if (this.state() === state) return
    if (state === 'paused') this.#partition.suspend()
    else this.#partition.resume()
  }
}
