import type { Backend } from './backend.ts'
import type { Capability } from './capability.ts'
import { MicrovmiError } from './errors.ts'

/** What the parts of one open Vm share: its backend, and whether it is still open. */
export class Session {
  readonly backend: Backend
  readonly scheme: string
  readonly capabilities: ReadonlySet<Capability>
  closed = false

  constructor(scheme: string, backend: Backend) {
    this.scheme = scheme
    this.backend = backend
    this.capabilities = new Set(backend.capabilities)
  }

  /** Throws `CLOSED` after close. */
  check(): void {
    if (this.closed) {
      throw new MicrovmiError('CLOSED', `${this.scheme}:${this.backend.name} was closed: open it again to go on`)
    }
  }

  /** Throws `CLOSED`, or `UNSUPPORTED` for a capability that this VM lacks. */
  need(capability: Capability): void {
    this.check()
    if (!this.capabilities.has(capability)) throw this.lack(capability)
  }

  /** Why this VM lacks a capability, as an error. */
  lack(capability: Capability): MicrovmiError {
    const why = this.backend.lacks?.[capability] ?? 'the driver does not offer it'
    return new MicrovmiError('UNSUPPORTED', `${this.scheme}:${this.backend.name} lacks ${capability}: ${why}`)
  }
}

/** The member of a backend that implements a capability; a driver that lists one without it broke the contract. */
export function partOf<T>(part: T | undefined, capability: Capability, session: Session): T {
  if (part !== undefined) return part
  session.need(capability)
  throw new MicrovmiError(
    'CONTRACT_MISMATCH',
    `driver '${session.scheme}' lists ${capability} but does not implement it: report this to the driver's authors`,
  )
}
