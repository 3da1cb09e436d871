import {
  type BackendEvent,
  type EventBackend,
  type EventSink,
  type InterceptRequest,
  type LifecycleChange,
  MicrovmiError,
} from '@microvmi/core/driver'
import type { Qmp, QmpEvent } from './qmp.ts'

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

/** `lifecycle` events, as QMP tells them. */
export class LifecycleEvents implements EventBackend {
  readonly #qmp: Qmp
  readonly #armed = new Set<number>()
  readonly #onGone: (error: MicrovmiError) => void
  #sink: EventSink | undefined

  constructor(qmp: Qmp, onGone: (error: MicrovmiError) => void) {
    this.#qmp = qmp
    this.#onGone = onGone
    qmp.watch(() => this.#deliver())
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    if (request.kind !== 'lifecycle') throw new MicrovmiError('UNSUPPORTED', `no events of kind ${request.kind}`)
    this.#armed.add(armed)
    this.#qmp.keepAlive(true)
  }

  disarm(armed: number): void {
    this.#armed.delete(armed)
    if (this.#armed.size === 0) this.#qmp.keepAlive(false)
  }

  /** Reports wait for no answer. */
  reply(): void {}

  #deliver(): void {
    let events: QmpEvent[]
    try {
      events = this.#qmp.takeEvents()
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#onGone(error)
      this.#sink?.fail(error)
      return
    }
    if (this.#armed.size === 0) return
    for (const event of events) {
      const change = changeOf(event)
      if (change) this.#sink?.deliver(this.#eventOf(change))
    }
  }

  #eventOf(change: LifecycleChange): BackendEvent {
    return { kind: 'lifecycle', armed: [...this.#armed], vcpu: 0, stops: 'none', complete: true, fields: { change } }
  }
}

function changeOf({ event, data, during }: QmpEvent): LifecycleChange | undefined {
  const isOwn = during !== undefined && OWN.has(during) && (event === 'STOP' || event === 'RESUME')
  if (isOwn) return undefined
  // `guest`: the guest asked for the reset itself.
  if (event === 'RESET' && data.guest === true) return 'reboot'
  if (event === 'MIGRATION' && data.status === 'active') return 'migrating'
  return CHANGES[event]
}
