/**
 * Virtual machines on Xen, from its dom0. Importing this registers the driver.
 *
 * @packageDocumentation
 */
export { type XenOptions, xen } from './driver.ts'
