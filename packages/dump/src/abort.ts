import { type AbortSignalLike, MicrovmiError } from '@microvmi/core'

/** The error of a dump whose signal was aborted. */
export function aborted(signal: AbortSignalLike | undefined): MicrovmiError {
  return new MicrovmiError('ABORTED', 'the dump was aborted', { cause: signal?.reason })
}

/** Throws `ABORTED` when the signal is. */
export function checkSignal(signal: AbortSignalLike | undefined): void {
  if (signal?.aborted) throw aborted(signal)
}
