import type { ScatteredRead } from '@microvmi/core/driver'

/** Another process's memory, by addresses of its own. Throws `DENIED` where this user may not, `VM_GONE` when it ended. */
export interface HostMemory {
  readonly way: 'process_vm' | 'proc'
  /** Whether a call has met the end of the process. */
  readonly hasEnded: boolean
  read(hostAddress: number, into: Uint8Array): void
  write(hostAddress: number, from: Uint8Array): void
  /** Up to 1 MiB, in memory that the next call overwrites. */
  piece(hostAddress: number, length: number): Uint8Array
  /** Many reads at once. `hostAddresses[i]` is where `reads[i]` is, or 0: not to be read. */
  readMany(reads: readonly ScatteredRead[], hostAddresses: Float64Array): void
  close(): void
}
