import type {
  BackendEvent,
  EventBackend,
  EventSink,
  InterceptRequest,
  MicrovmiError,
  Reply,
} from '@microvmi/core/driver'
import { DebugEvents, type DebugParts } from './debug-events.ts'
import { LifecycleEvents } from './lifecycle.ts'
import type { Qmp } from './qmp.ts'

/** All events of stock QEMU: the VM's life from QMP, what its vCPUs do from the gdbstub. */
export class QemuEvents implements EventBackend {
  readonly #lifecycle: LifecycleEvents
  readonly #debug: DebugEvents
  readonly #failed: (error: MicrovmiError) => void
  #sink: EventSink | undefined
  #hasFailed = false

  /** @param parts `failed` is called once: the VM has gone, or QEMU is of no use any more */
  constructor(qmp: Qmp, parts: DebugParts) {
    this.#failed = parts.failed
    const failed = (error: MicrovmiError) => this.#fail(error)
    this.#debug = new DebugEvents({ ...parts, failed })
    this.#lifecycle = new LifecycleEvents(qmp, { run: parts.run, failed, reset: () => this.#debug.reset() })
  }

  listen(sink: EventSink): void {
    this.#sink = sink
    this.#lifecycle.listen(sink)
    this.#debug.listen(sink)
  }

  arm(request: InterceptRequest, armed: number): void {
    if (request.kind === 'lifecycle') this.#lifecycle.arm(armed)
    else this.#debug.arm(request, armed)
  }

  disarm(armed: number): void {
    this.#lifecycle.disarm(armed)
    this.#debug.disarm(armed)
  }

  reply(event: BackendEvent, parts: Reply): void {
    this.#debug.reply(event, parts)
  }

  #fail(error: MicrovmiError): void {
    if (this.#hasFailed) return
    this.#hasFailed = true
    this.#debug.abandon()
    this.#failed(error)
    this.#sink?.fail(error)
  }
}
