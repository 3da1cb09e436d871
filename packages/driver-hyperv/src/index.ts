/**
 * Virtual machines of Hyper-V. Importing this registers the drivers.
 *
 * @packageDocumentation
 */
export { type HypervSavedOptions, hypervSaved } from './saved/driver.ts'
