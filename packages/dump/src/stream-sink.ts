import type { Writable } from 'node:stream'
import { type AbortSignalLike, MicrovmiError } from '@microvmi/core'
import { aborted } from './abort.ts'
import type { Sink } from './sink.ts'

const STEP = 2 ** 20

/**
 * A stream of the caller's: raw bytes, each piece awaited, so that a slow reader slows the dump and not the memory. The
 * stream may keep what it is given: it gets copies.
 */
export class StreamSink implements Sink {
  readonly #stream: Writable
  readonly #signal: AbortSignalLike | undefined
  #written = 0

  constructor(stream: Writable, signal: AbortSignalLike | undefined) {
    this.#stream = stream
    this.#signal = signal
  }

  get written(): number {
    return this.#written
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#put(Buffer.from(bytes))
  }

  async writeZeros(length: number): Promise<void> {
    for (let done = 0; done < length; done += STEP) await this.#put(Buffer.alloc(Math.min(STEP, length - done)))
  }

  /** The stream stays open: it is the caller's. */
  finish(): void {}

  close(): void {}

  #put(bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Error | null) => {
        this.#stream.off('error', settle)
        this.#stream.off('close', onClose)
        this.#signal?.removeEventListener('abort', onAbort)
        if (error) return reject(error instanceof MicrovmiError ? error : failed(error))
        this.#written += bytes.length
        resolve()
      }
      const onClose = () => settle(new Error('it was closed'))
      // A reader that has stopped reading must not keep the VM paused.
      const onAbort = () => settle(aborted(this.#signal))
      this.#stream.once('error', settle)
      this.#stream.once('close', onClose)
      this.#signal?.addEventListener('abort', onAbort)
      if (this.#stream.destroyed || this.#stream.writableEnded) onClose()
      else this.#stream.write(bytes, settle)
    })
  }
}

function failed(error: Error): MicrovmiError {
  return new MicrovmiError('STORAGE', `the stream did not take the dump: ${error.message}`, { cause: error })
}
