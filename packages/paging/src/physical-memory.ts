import type { MemoryReading, ScatteredRead } from '@microvmi/core'

/** What a translation is read from: an open Vm, or whatever else has guest-physical memory. */
export interface PhysicalMemory {
  readonly memory: Pick<MemoryReading, 'tryRead' | 'readMany'>
}

/**
 * Physical memory out of one function, which fills its buffer from an address, or says that not all of it is memory. For
 * drivers, which translate before there is a Vm.
 */
export function physicalMemoryOf(tryRead: (address: number, into: Uint8Array) => boolean): PhysicalMemory {
  const readMany = (reads: readonly ScatteredRead[]) =>
    reads.flatMap(({ address, into }, index) => (tryRead(address, into) ? [] : [{ index, address }]))
  return { memory: { tryRead, readMany } }
}
