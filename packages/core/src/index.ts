/// <reference lib="esnext.disposable" preserve="true" />

/**
 * Virtual machine introspection: one interface to every hypervisor. Import a driver's package, then `open`.
 *
 * @packageDocumentation
 */
export { ADDRESS_LIMIT, PAGE_SIZE, pageFrame, pageStart } from './address.ts'
export * from './capability.ts'
export { CONTRACT, type ContractVersion, type Driver, type Probe, type VmListing } from './contract.ts'
export { type ErrorCode, MicrovmiError, type MicrovmiErrorOptions } from './errors.ts'
export type * from './events.ts'
export { type ListFailure, type Listing, type ListOptions, list, type VmEntry } from './list.ts'
export type * from './memory.ts'
export { type CommonOptions, type DriverOptions, open } from './open.ts'
export type * from './registers.ts'
export { type Registration, registrations } from './registry.ts'
export { formatTarget, parseTarget, type Target } from './target.ts'
