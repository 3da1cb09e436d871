import type { MemoryReading } from '@microvmi/core'

/** What a translation is read from: an open Vm, or whatever else has guest-physical memory. */
export interface PhysicalMemory {
  readonly memory: Pick<MemoryReading, 'tryRead' | 'readMany'>
}
