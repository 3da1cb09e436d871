import type { RunBackend, RunState } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'
import { STATE } from './layout.ts'
import { STOPPED } from './lock-file.ts'

/**
 * Stopping and resuming over FDP. The server does not count, and a breakpoint stops the VM as a pause does: who wants
 * it to stand still is remembered here for this session, and in the lock file for all of ours.
 */
export class FdpRunState implements RunBackend {
  /** Finds out which vCPUs have stopped at a breakpoint: a resume would make them forget it. */
  findEvents: () => void = () => {}
  readonly #client: FdpClient
  #isPauseOn = false
  /** Events that stop the VM and have no answer yet. */
  #events = 0
  /** What else needs it stopped: calls, one within the other, and single steps. */
  #stops = 0
  #isHolding = false

  constructor(client: FdpClient) {
    this.#client = client
  }

  pause(): void {
    this.#hold()
    this.#isPauseOn = true
  }

  resume(): void {
    this.#isPauseOn = false
    this.#letGo()
  }

  state(): RunState {
    return (this.#client.state() & STATE.paused) !== 0 ? 'paused' : 'running'
  }

  setState(state: RunState): void {
    const { channel } = this.#client
    channel.exclusively(() => {
      if (state === 'paused') {
        channel.notes.stopped = STOPPED.forGood
        if (this.state() === 'running') this.#client.pause()
      } else if (this.#isHeld || channel.notes.othersHold) {
        channel.notes.stopped = STOPPED.byHolds
      } else {
        resume(this.#client)
      }
    })
  }

  /** Does `work` with all vCPUs stopped, and leaves them as they were. */
  whileStopped<T>(work: () => T): T {
    this.beginStop()
    try {
      return work()
    } finally {
      this.endStop()
    }
  }

  beginStop(): void {
    this.#hold()
    this.#stops += 1
  }

  endStop(): void {
    this.#stops -= 1
    this.#letGo()
  }

  /** An event was found that has stopped the VM. */
  stoppedByEvent(): void {
    const { channel } = this.#client
    channel.exclusively(() => {
      if (channel.notes.stopped === STOPPED.byOthers) channel.notes.stopped = STOPPED.byHolds
      channel.notes.holds = true
    })
    this.#isHolding = true
    this.#events += 1
  }

  /** It has its answer. */
  answered(): void {
    this.#events -= 1
    this.#letGo()
  }

  #hold(): void {
    if (this.#isHolding) return
    const { channel } = this.#client
    channel.exclusively(() => {
      if (this.state() === 'running') {
        // Noted first: what a process that dies now has done is undone by the next.
        channel.notes.stopped = STOPPED.byHolds
        this.#client.pause()
      }
      channel.notes.holds = true
    })
    this.#isHolding = true
  }

  #letGo(): void {
    if (!this.#isHolding || this.#isHeld) return
    const { notes } = this.#client.channel
    this.#client.channel.exclusively(() => {
      this.findEvents()
      // An event that nobody wanted has its answer already, and the VM may have gone on with it.
      if (this.#isHeld || !this.#isHolding) return
      this.#isHolding = false
      notes.holds = false
      if (notes.listener === 'this') notes.noteAnswered()
      if (notes.stopped !== STOPPED.byHolds || notes.othersHold) return
      // A hit that its listener has not seen yet would be forgotten: the VM goes on when that one has answered it.
      if (notes.listener === 'other' && !notes.isAnswered && (this.#client.state() & STATE.breakpointHit) !== 0) return
      resume(this.#client)
    })
  }

  get #isHeld(): boolean {
    return this.#events > 0 || this.#isPauseOn || this.#stops > 0
  }
}

/** Lets the VM go on, and says so to the other sessions. */
export function resume(client: FdpClient): void {
  client.resume()
  client.channel.notes.stopped = STOPPED.byOthers
  client.channel.notes.noteResume()
}
