export { type FdpOptions, fdp } from './driver.ts'
