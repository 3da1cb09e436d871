/**
 * VirtualBox's virtual machines, of the stock product and of one with the FDP patch. Importing this registers the
 * drivers.
 *
 * @packageDocumentation
 */
export { type FdpOptions, fdp } from './fdp/index.ts'
export { type VirtualBoxOptions, virtualbox } from './stock/driver.ts'
