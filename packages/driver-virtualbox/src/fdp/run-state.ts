import type { RunBackend, RunState } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'
import { STATE } from './layout.ts'

/**
 * Stopping and resuming over FDP. The server does not count, and a breakpoint stops the VM as a pause does: who wants
 * it to stand still is remembered here.
 */
export class FdpRunState implements RunBackend {
  /** Finds out which vCPUs have stopped at a breakpoint: a resume would make them forget it. */
  findEvents: () => void = () => {}
  /** Called when the VM goes on. */
  wentOn: () => void = () => {}
  readonly #client: FdpClient
  #isPauseOn = false
  /** `setState('paused')`: what outlasts events, and this session. */
  #isSettled = false
  /** Events that stop the VM and have no answer yet. */
  #events = 0
  #stops = 0
  /** The VM stands still because of us, and is to go on when nothing of the above holds it any more. */
  #owesResume = false

  constructor(client: FdpClient) {
    this.#client = client
  }

  pause(): void {
    if (this.state() === 'running') this.#stop()
    this.#isPauseOn = true
    this.#client.channel.notePause(this.#owesResume)
  }

  resume(): void {
    this.#isPauseOn = false
    this.#client.channel.notePause(false)
    this.#goOn()
  }

  state(): RunState {
    return (this.#client.state() & STATE.paused) !== 0 ? 'paused' : 'running'
  }

  setState(state: RunState): void {
    this.#isSettled = state === 'paused'
    if (this.#isSettled) {
      this.#client.pause()
    } else {
      this.#owesResume = true
      this.#goOn()
    }
  }

  /** Does `work` with all vCPUs stopped, and leaves them as they were. */
  whileStopped<T>(work: () => T): T {
    if (this.#stops === 0 && this.state() === 'running') this.#stop()
    this.#stops += 1
    try {
      return work()
    } finally {
      this.#stops -= 1
      this.#goOn()
    }
  }

  /** An event was found that has stopped the VM. */
  stoppedByEvent(): void {
    this.#events += 1
    this.#owesResume = true
  }

  /** It has its answer. */
  answered(): void {
    this.#events -= 1
    this.#goOn()
  }

  #stop(): void {
    this.#client.pause()
    this.#owesResume = true
  }

  #goOn(): void {
    if (!this.#owesResume || this.#isHeld) return
    this.findEvents()
    if (this.#isHeld) return
    this.#owesResume = false
    this.#client.resume()
    this.wentOn()
  }

  get #isHeld(): boolean {
    return this.#events > 0 || this.#isPauseOn || this.#isSettled || this.#stops > 0
  }
}
