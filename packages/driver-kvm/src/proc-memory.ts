import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { MicrovmiError, type ScatteredRead } from '@microvmi/core/driver'
import type { HostMemory } from './host-memory.ts'

const PIECE_LIMIT = 2 ** 20

/** The memory of QEMU's process through /proc/PID/mem (proc(5)): where a sandbox forbids the faster system calls. */
export class ProcMemory implements HostMemory {
  readonly way = 'proc'
  readonly #pid: number
  readonly #fd: number
  readonly #piece = new Uint8Array(PIECE_LIMIT)
  #hasEnded = false

  constructor(pid: number) {
    this.#pid = pid
    try {
      this.#fd = openSync(`/proc/${pid}/mem`, 'r+')
    } catch (error) {
      throw this.#failure(error)
    }
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  read(hostAddress: number, into: Uint8Array): void {
    this.#all(into.length, (done) => readSync(this.#fd, into, done, into.length - done, hostAddress + done))
  }

  write(hostAddress: number, from: Uint8Array): void {
    this.#all(from.length, (done) => writeSync(this.#fd, from, done, from.length - done, hostAddress + done))
  }

  piece(hostAddress: number, length: number): Uint8Array {
    const bytes = this.#piece.subarray(0, length)
    this.read(hostAddress, bytes)
    return bytes
  }

  readMany(reads: readonly ScatteredRead[], hostAddresses: Float64Array): void {
    for (const [index, { into }] of reads.entries()) {
      const hostAddress = hostAddresses[index] ?? 0
      if (hostAddress !== 0 && into.length > 0) this.read(hostAddress, into)
    }
  }

  close(): void {
    closeSync(this.#fd)
  }

  #all(length: number, step: (done: number) => number): void {
    try {
      for (let done = 0; done < length; ) {
        const moved = step(done)
        // A process that has ended has no memory: reads of it end at once.
        if (moved === 0) throw new MicrovmiError('VM_GONE', `QEMU (process ${this.#pid}) has ended`)
        done += moved
      }
    } catch (thrown) {
      const error = this.#failure(thrown)
      this.#hasEnded = error instanceof MicrovmiError && error.code === 'VM_GONE'
      throw error
    }
  }

  #failure(error: unknown): unknown {
    const { code } = error as NodeJS.ErrnoException
    if (error instanceof MicrovmiError || typeof code !== 'string') return error
    if (code === 'EACCES' || code === 'EPERM') {
      return new MicrovmiError('DENIED', `no right to the memory of process ${this.#pid}`, { cause: error })
    }
    return new MicrovmiError('VM_GONE', `QEMU (process ${this.#pid}) has let go of the guest's memory`, {
      cause: error,
    })
  }
}
