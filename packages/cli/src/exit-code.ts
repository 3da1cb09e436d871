import type { ErrorCode } from '@microvmi/core'

/** What the process ends with; in the README. A signal ends it with 128 plus the signal's number. */
export const EXIT = { ok: 0, failure: 1, usage: 2, notFound: 3, notAllowed: 4, notNow: 5 } as const

const CODES: { readonly [Code in ErrorCode]?: number } = {
  BAD_ARGUMENT: EXIT.usage,
  UNKNOWN_DRIVER: EXIT.notFound,
  VM_NOT_FOUND: EXIT.notFound,
  VM_AMBIGUOUS: EXIT.notFound,
  DENIED: EXIT.notAllowed,
  DRIVER_UNAVAILABLE: EXIT.notAllowed,
  UNSUPPORTED: EXIT.notAllowed,
  BUSY: EXIT.notNow,
  TIMEOUT: EXIT.notNow,
  VM_GONE: EXIT.notNow,
}

/** The exit code for an error of this code. */
export function exitCodeOf(code: ErrorCode): number {
  return CODES[code] ?? EXIT.failure
}
