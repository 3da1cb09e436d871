import type { Hash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import type { AbortSignalLike } from '@microvmi/core'
import { checkSignal } from './abort.ts'
import type { DumpableVm, DumpProgress } from './dump.ts'
import type { Sink } from './sink.ts'
import { BLOCK, ZEROS } from './zeros.ts'

/** How memory is copied. */
export interface CopyOptions {
  readonly hash: Hash | undefined
  /** Whether the guest cannot change what is copied. */
  readonly isPaused: boolean
  readonly signal: AbortSignalLike | undefined
  readonly onProgress: ((progress: DumpProgress) => void) | undefined
  /** When the dump began, of `performance.now()`. */
  readonly started: number
}

/** The event loop waits at most about so many milliseconds. */
const TURN = 8
const PROGRESS_INTERVAL = 100
const ZEROS_STEP = 2 ** 20

/** Copies all of the guest's memory to `sink`, holes as zeros, and returns the length of the image. */
export async function copyMemory(vm: DumpableVm, sink: Sink, options: CopyOptions): Promise<number> {
  const { hash, isPaused, signal, onProgress, started } = options
  const { ranges } = vm.memory.regions()
  const end = ranges.reduce((last, { kind, start, length }) => (kind === 'ram' ? start + length : last), 0)
  const total = ranges.reduce((sum, { start, length }) => (start < end ? sum + length : sum), 0)
  let position = 0
  let done = 0
  let turnBegan = performance.now()
  let told = started

  /** Between two pieces: lets the event loop run when it is time, hears the signal, tells how far we are. */
  const turn = async (): Promise<void> => {
    if (performance.now() - turnBegan >= TURN) {
      await setImmediate()
      turnBegan = performance.now()
    }
    checkSignal(signal)
    const now = performance.now()
    if (now - told < PROGRESS_INTERVAL) return
    told = now
    onProgress?.({ done, total, elapsed: now - started })
  }

  const zeros = async (length: number): Promise<void> => {
    if (hash) {
      for (let hashed = 0; hashed < length; hashed += ZEROS_STEP) {
        hashZeros(hash, Math.min(ZEROS_STEP, length - hashed))
        await turn()
      }
    }
    await sink.writeZeros(length)
  }

  for await (const { address, length, bytes } of vm.memory.pieces({ within: { start: 0, length: end } })) {
    if (address > position) await zeros(address - position)
    if (bytes) {
      // A running guest may change a window between the hash and the write: then both take a copy.
      const stable = hash && !isPaused ? bytes.slice() : bytes
      hash?.update(stable)
      const writing = sink.write(stable)
      if (writing) await writing
    } else {
      await zeros(length)
    }
    position = address + length
    done += length
    await turn()
  }
  onProgress?.({ done, total, elapsed: performance.now() - started })
  return position
}

function hashZeros(hash: Hash, length: number): void {
  for (let done = 0; done < length; done += BLOCK) hash.update(ZEROS.subarray(0, Math.min(BLOCK, length - done)))
}
