import { createHash } from 'node:crypto'
import type { Writable } from 'node:stream'
import { type AbortSignalLike, MicrovmiError, type PauseLease, supports, type Vm } from '@microvmi/core'
import { checkSignal } from './abort.ts'
import { copyMemory } from './copy.ts'
import { FileSink } from './file-sink.ts'
import { StreamSink } from './stream-sink.ts'

/** What a dump needs of a Vm. One that can also be paused is, for as long as the dump takes. */
export type DumpableVm = Vm<'memory.read' | 'memory.regions'>

/** How to dump. */
export interface DumpOptions {
  /**
   * For files: leave blocks of zeros out, which then take no space on disk and read as zeros. Default true. A stream
   * always receives every byte.
   */
  readonly sparse?: boolean
  /** For files: replace one that is there. Default false: `EXISTS`. */
  readonly overwrite?: boolean
  /** Pause the VM meanwhile, so that the dump is of one moment. Default true, where the VM can be paused. */
  readonly pause?: boolean
  /** Compute the SHA-256 of the raw image: of every byte from address 0 on, holes as zeros, sparse or not. */
  readonly sha256?: boolean
  /** Ends the dump with `ABORTED`; no file is left. */
  readonly signal?: AbortSignalLike
  /** Called some ten times a second, and at the end. */
  readonly onProgress?: (progress: DumpProgress) => void
}

/** How far a dump is. */
export interface DumpProgress {
  /** Bytes of guest memory behind us. */
  readonly done: number
  /** Bytes of guest memory in all; the holes between ranges do not count. */
  readonly total: number
  /** Milliseconds since the dump began. */
  readonly elapsed: number
}

/** What a dump has made. */
export interface DumpResult {
  /** Bytes of the image: the address behind the last byte of RAM. */
  readonly length: number
  /** Bytes that were written: zeros that a sparse file leaves out do not count. */
  readonly written: number
  /** Lower-case hexadecimal, where it was asked for. */
  readonly sha256: string | undefined
  /** Milliseconds that it took. */
  readonly elapsed: number
}

/**
 * Writes the guest's physical memory as a raw image: the byte at offset N is the byte at guest-physical address N, holes
 * are zeros. It ends with the last byte of RAM: ROM that lies above (the firmware below 4 GiB, in small guests) would
 * make an image of gigabytes of nothing. A file is written under a temporary name with mode 0600 and takes its own only when it is whole and on
 * disk; on any failure nothing is left, and the VM runs again if it ran before.
 *
 * Throws `EXISTS`, `STORAGE` (disk full, read-only), `DENIED`, `BAD_ARGUMENT` (a directory), `ABORTED`, `VM_GONE`.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { dumpMemory } from '@microvmi/dump'
 *
 * const vm = await open('kvm:debian', { require: ['memory.read', 'memory.regions'] })
 * try {
 *   const { length, sha256 } = await dumpMemory(vm, 'debian.raw', { sha256: true })
 *   console.log(length, sha256)
 * } finally {
 *   await vm.close()
 * }
 * ```
 *
 * @param destination a file's path, or a stream, which stays open and receives every byte
 */
export async function dumpMemory(
  vm: DumpableVm,
  destination: string | Writable,
  options: DumpOptions = {},
): Promise<DumpResult> {
  const { sparse = true, overwrite = false, pause = true, sha256 = false, signal, onProgress } = options
  checkSignal(signal)
  const started = performance.now()
  const sink =
    typeof destination === 'string'
      ? new FileSink(destination, { sparse, overwrite })
      : new StreamSink(destination, signal)
  const hash = sha256 ? createHash('sha256') : undefined
  let lease: PauseLease | undefined
  try {
    if (pause && supports(vm, 'pause')) lease = vm.pause()
    const length = await copyMemory(vm, sink, { hash, isPaused: lease !== undefined, signal, onProgress, started })
    lease?.end()
    lease = undefined
    checkSignal(signal)
    await sink.finish()
    return { length, written: sink.written, sha256: hash?.digest('hex'), elapsed: performance.now() - started }
  } finally {
    try {
      endPause(lease)
    } finally {
      sink.close()
    }
  }
}

/** Of a VM that has gone there is nothing to resume, and that it has gone is thrown already. */
function endPause(lease: PauseLease | undefined): void {
  try {
    lease?.end()
  } catch (error) {
    if (!(error instanceof MicrovmiError && error.code === 'VM_GONE')) throw error
  }
}
