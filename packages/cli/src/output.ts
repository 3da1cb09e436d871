import type { AbortSignalLike } from '@microvmi/core'
import type { Io } from './io.ts'

/**
 * Writes to stdout and waits until the reader took it: buffers are used again, and a slow reader must not fill our
 * memory. An aborted signal ends the wait: a reader that has stopped keeps nobody.
 */
export function write(io: Io, bytes: string | Uint8Array, signal: AbortSignalLike): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: Error | null) => {
      signal.removeEventListener('abort', onAbort)
      if (error) reject(error)
      else resolve()
    }
    const onAbort = () => settle()
    signal.addEventListener('abort', onAbort)
    io.stdout.write(bytes, settle)
  })
}
