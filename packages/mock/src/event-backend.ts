import {
  type BackendEvent,
  badArgument,
  type EventBackend,
  type EventKind,
  type EventSink,
  type InterceptRequest,
  MicrovmiError,
  type Reply,
} from '@microvmi/core/driver'
import { EVENT_KINDS } from './capabilities.ts'
import type { Connection, Host } from './host.ts'

/** `events.*` of one session. */
export class MockEvents implements EventBackend {
  readonly #host: Host
  readonly #session: Connection
  readonly #armed = new Set<number>()
  #sink: EventSink | undefined

  constructor(host: Host, session: Connection) {
    this.#host = host
    this.#session = session
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    const host = this.#host
    const { machine } = host
    host.exchange()
    if (host.listener && host.listener !== this.#session) {
      throw new MicrovmiError('BUSY', `another session receives the events of ${host.options.name}: end its intercepts`)
    }
    check(request)
    if (request.kind === 'breakpoint') machine.breakpoints.add(request, armed)
    if (request.kind === 'watchpoint') machine.breakpoints.addWatchpoint(request, armed)
    if (request.kind === 'memory' && request.view !== undefined) machine.views.check(request.view)
    machine.watches.add(request, armed)
    machine.sink = this.#sink
    machine.flush()
    machine.attend()
    host.listener = this.#session
    this.#armed.add(armed)
    host.clock.keepAlive(true)
  }

  disarm(armed: number): void {
    const host = this.#host
    if (!this.#armed.delete(armed)) return
    host.machine.disarm(armed)
    if (this.#armed.size > 0) return
    host.listener = undefined
    host.machine.sink = undefined
    host.clock.keepAlive(false)
  }

  reply(event: BackendEvent, parts: Reply): void {
    this.#host.exchange()
    this.#host.machine.reply(event, parts)
  }

  /** The VM has gone. */
  fail(error: MicrovmiError): void {
    this.#sink?.fail(error)
  }

  release(): void {
    for (const armed of [...this.#armed]) this.disarm(armed)
  }
}

const KINDS: ReadonlySet<EventKind> = new Set(EVENT_KINDS)

/** Throws for a request that is not well formed. */
function check(request: InterceptRequest): void {
  if (!KINDS.has(request.kind))
    throw new MicrovmiError('UNSUPPORTED', `this guest has no events of kind ${request.kind}`)
  switch (request.kind) {
    case 'cr':
      if (!['cr0', 'cr3', 'cr4', 'xcr0'].includes(request.register)) {
        throw badArgument(`register is cr0, cr3, cr4 or xcr0, not ${String(request.register)}`)
      }
      break
    case 'msr':
      if (!Number.isInteger(request.msr) || request.msr < 0 || request.msr > 0xffff_ffff) {
        throw badArgument(`msr is a whole number of 32 bits, not ${String(request.msr)}`)
      }
      break
    case 'watchpoint':
      if (![1, 2, 4, 8].includes(request.length)) {
        throw badArgument(`a watchpoint has 1, 2, 4 or 8 bytes, not ${String(request.length)}`)
      }
      if (!['r', 'w', 'rw'].includes(request.access)) {
        throw badArgument(`a watchpoint is for r, w or rw, not ${String(request.access)}`)
      }
      break
    case 'memory':
      if (!Number.isSafeInteger(request.address) || request.address < 0) {
        throw badArgument(`address is a guest-physical address, not ${String(request.address)}`)
      }
      if (!Number.isSafeInteger(request.length) || request.length < 1) {
        throw badArgument(`length is a number of bytes from 1 on, not ${String(request.length)}`)
      }
      if (!/^(r?w?x?|none)$/.test(request.access) || request.access.length === 0) {
        throw badArgument(`access is some of r, w and x, not ${String(request.access)}`)
      }
      break
  }
}
