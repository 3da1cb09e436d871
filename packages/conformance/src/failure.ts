/** What a driver does wrong. */
export class ConformanceError extends Error {
  override readonly name = 'ConformanceError'
}

/** Why a case was not run: the VM lacks a capability, or the fixture does not know what it takes. */
export class Skipped extends Error {
  override readonly name = 'Skipped'
  readonly reason: string

  constructor(reason: string) {
    super(`not run: ${reason}`)
    this.reason = reason
  }
}
