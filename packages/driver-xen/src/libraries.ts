import type { Libraries } from './library-calls.ts'
import { load } from './load-libraries.ts'

let loaded: Libraries | undefined

/** Loads Xen's libraries on first use. Throws `DRIVER_UNAVAILABLE`, saying why, where there are none. */
export function libraries(): Libraries {
  loaded ??= load()
  return loaded
}

/** errno of the call just made; it says nothing after a call that succeeded. */
export function errno(): number {
  return libraries().koffi.errno()
}
