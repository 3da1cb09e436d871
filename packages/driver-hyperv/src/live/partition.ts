import type { Detail, MemoryLayout } from '@microvmi/core/driver'

/** The libraries that live partitions can be reached through. */
export type Way = 'hvlib' | 'vid'

/** A running partition, as a listing names it. */
export interface PartitionName {
  /** What people call the VM. Empty where the library does not tell. */
  readonly name: string
  /** The VM's GUID in lower case without braces, or the partition's id in hexadecimal where no GUID is told. */
  readonly id: string
}

/** One library's way to the partitions of this host. */
export interface PartitionSource {
  readonly way: Way
  /** The partitions that it sees now. Throws `DENIED`, `DRIVER_UNAVAILABLE`, `HYPERVISOR`. */
  list(): readonly PartitionName[]
  /** Opens one of `list`'s. Throws `VM_GONE` when it has ended meanwhile. The caller closes it. */
  open(partition: PartitionName): LivePartition
}

/**
 * What a live partition can do, however it is reached. Addresses, lengths and vCPU numbers were checked by core.
 * When the partition has gone, every call throws `VM_GONE`.
 */
export interface LivePartition extends PartitionName {
  readonly vcpuCount: number
  /** What to show of how it is reached. */
  readonly details: Readonly<Record<string, Detail>>
  /** Where it has memory, where the library tells; else why not. Always the one or always the other. */
  layout(): MemoryLayout | string
  /** Whole pages: fills `into` and returns `true`, or `false` where a page of the range is not memory of the guest. */
  readPages(page: number, into: Uint8Array): boolean
  /** Writes any bytes; all of the range is known to be memory. */
  write(address: number, from: Uint8Array): void
  /**
   * Reads registers by HV_REGISTER_NAME: 16 bytes of HV_REGISTER_VALUE each, in order. `false` where one of them is
   * not given.
   */
  readRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): boolean
  /** Sets registers: the same form. */
  writeRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): void
  /** Stops all vCPUs: on return they are. */
  suspend(): void
  /** Lets all of them go on. */
  resume(): void
  isSuspended(): boolean
  /** Lets go of it. Harmless when repeated. */
  close(): void
}
