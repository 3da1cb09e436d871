import { type BackendEvent, type EventSink, type LifecycleChange, MicrovmiError } from '@microvmi/core/driver'
import type { Qmp, QmpEvent } from './qmp.ts'
import type { QemuRunState } from './run-state.ts'

/** QMP's events (QEMU, qapi/run-state.json) as changes of the VM. */
const CHANGES: Readonly<Record<string, LifecycleChange>> = {
  STOP: 'paused',
  RESUME: 'resumed',
  RESET: 'reset',
  SHUTDOWN: 'shutdown',
  GUEST_PANICKED: 'crashed',
  SUSPEND: 'suspended',
  SUSPEND_DISK: 'suspended',
}

/** Commands of ours that stop the VM or let it run: the STOP and RESUME that come with them are no news. */
const OWN = new Set(['stop', 'cont', 'xen-save-devices-state'])

/** What else has to hear of QMP's events. */
export interface LifecycleParts {
  readonly run: QemuRunState
  /** The guest was reset. */
  reset(): void
  failed(error: MicrovmiError): void
}

/** `lifecycle` events, as QMP tells them. */
export class LifecycleEvents {
  readonly #qmp: Qmp
  readonly #parts: LifecycleParts
  readonly #armed = new Set<number>()
  #sink: EventSink | undefined

  constructor(qmp: Qmp, parts: LifecycleParts) {
    this.#qmp = qmp
    this.#parts = parts
    qmp.watch(() => this.#look())
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(armed: number): void {
    this.#armed.add(armed)
    this.#qmp.keepAlive(true)
  }

  disarm(armed: number): void {
    this.#armed.delete(armed)
    if (this.#armed.size === 0) this.#qmp.keepAlive(false)
  }

  #look(): void {
    try {
      for (const event of this.#qmp.takeEvents()) this.#take(event)
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#parts.failed(error)
    }
  }

  #take(event: QmpEvent): void {
    const isRunState = event.event === 'STOP' || event.event === 'RESUME'
    // A breakpoint's stops come by QMP too.
    if (isRunState && ((event.during !== undefined && OWN.has(event.during)) || this.#parts.run.isOwn(event.event)))
      return
    const change = changeOf(event)
    if (change && this.#armed.size > 0) this.#sink?.deliver(this.#eventOf(change))
    if (event.event === 'RESET') this.#parts.reset()
  }

  #eventOf(change: LifecycleChange): BackendEvent {
    return { kind: 'lifecycle', armed: [...this.#armed], vcpu: 0, stops: 'none', complete: true, fields: { change } }
  }
}

function changeOf({ event, data }: QmpEvent): LifecycleChange | undefined {
  // `guest`: the guest asked for the reset itself.
  if (event === 'RESET' && data.guest === true) return 'reboot'
  if (event === 'MIGRATION' && data.status === 'active') return 'migrating'
  return CHANGES[event]
}
