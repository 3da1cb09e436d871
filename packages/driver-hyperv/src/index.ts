/**
 * Virtual machines of Hyper-V. Importing this registers the drivers.
 *
 * @packageDocumentation
 */
export { type HypervOptions, hyperv } from './live/driver.ts'
export { type HypervSavedOptions, hypervSaved } from './saved/driver.ts'
