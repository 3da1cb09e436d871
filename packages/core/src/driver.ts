/// <reference lib="esnext.disposable" preserve="true" />

/**
 * For authors of drivers: the contract that a driver implements.
 *
 * @packageDocumentation
 */
export { ADDRESS_LIMIT, PAGE_SIZE, pageFrame, pageStart } from './address.ts'
export type * from './backend.ts'
export type { Capability, Detail, RunState } from './capability.ts'
export type * from './contract.ts'
export { defineDriver } from './contract.ts'
export { badAddress, badArgument, type ErrorCode, MicrovmiError } from './errors.ts'
export type * from './events.ts'
export type * from './memory.ts'
export { Patches } from './patches.ts'
export type * from './registers.ts'
export { register, unregister } from './registry.ts'
