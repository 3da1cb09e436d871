import { MicrovmiError } from './errors.ts'
import type { AbortSignalLike } from './events.ts'

interface Timers {
  setTimeout(callback: () => void, milliseconds: number): unknown
  clearTimeout(timer: unknown): void
}

// Every runtime that core runs in has them; their types would bring in node's or the DOM's.
const { setTimeout, clearTimeout } = globalThis as unknown as Timers

/** The result of `work`, or `TIMEOUT` after so many milliseconds, or `ABORTED` when the signal is. */
export async function within<T>(
  work: Promise<T>,
  what: string,
  milliseconds: number,
  signal?: AbortSignalLike,
): Promise<T> {
  let timer: unknown
  let stopWatching: (() => void) | undefined
  const given = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new MicrovmiError('TIMEOUT', `${what} did not end within ${milliseconds} ms`))
    }, milliseconds)
    if (!signal) return
    const onAbort = () => reject(aborted(what, signal))
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    stopWatching = () => signal.removeEventListener('abort', onAbort)
  })
  try {
    return await Promise.race([work, given])
  } finally {
    clearTimeout(timer)
    stopWatching?.()
  }
}

/** The error for a call whose signal was aborted. */
export function aborted(what: string, signal: AbortSignalLike): MicrovmiError {
  return new MicrovmiError('ABORTED', `${what} was aborted`, { cause: signal.reason })
}
