import type { Writable } from 'node:stream'
import { MicrovmiError } from '@microvmi/core'
import type { Sink } from './sink.ts'
import { BLOCK, ZEROS } from './zeros.ts'

/** A stream of the caller's: raw bytes, each piece awaited, so that a slow reader slows the dump and not the memory. */
export class StreamSink implements Sink {
  readonly #stream: Writable
  #written = 0

  constructor(stream: Writable) {
    this.#stream = stream
  }

  get written(): number {
    return this.#written
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Error | null) => {
        this.#stream.off('error', settle)
        this.#stream.off('close', onClose)
        if (error) return reject(failed(error))
        this.#written += bytes.length
        resolve()
      }
      const onClose = () => settle(new Error('it was closed'))
      this.#stream.once('error', settle)
      this.#stream.once('close', onClose)
      if (this.#stream.destroyed || this.#stream.writableEnded) onClose()
      else this.#stream.write(bytes, settle)
    })
  }

  async writeZeros(length: number): Promise<void> {
    for (let done = 0; done < length; done += BLOCK) await this.write(ZEROS.subarray(0, Math.min(BLOCK, length - done)))
  }

  /** The stream stays open: it is the caller's. */
  finish(): void {}

  close(): void {}
}

function failed(error: Error): MicrovmiError {
  return new MicrovmiError('STORAGE', `the stream did not take the dump: ${error.message}`, { cause: error })
}
