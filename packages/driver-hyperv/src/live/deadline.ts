import { MicrovmiError } from '@microvmi/core/driver'

/** Milliseconds between two looks. */
const LOOK = 1

const sleeping = new Int32Array(new SharedArrayBuffer(4))

/** Looks until it is so. Throws `TIMEOUT`. */
export function waitUntil(isSo: () => boolean, timeout: number, what: string): void {
  const end = performance.now() + timeout
  while (!isSo()) {
    if (performance.now() > end) throw new MicrovmiError('TIMEOUT', `${what} within ${timeout} ms`)
    Atomics.wait(sleeping, 0, 0, LOOK)
  }
}
