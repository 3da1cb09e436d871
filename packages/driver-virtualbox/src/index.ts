/**
 * Virtual machines of a VirtualBox with the FDP patch. Importing this registers the driver.
 *
 * @packageDocumentation
 */
export { type FdpOptions, fdp } from './fdp/index.ts'
