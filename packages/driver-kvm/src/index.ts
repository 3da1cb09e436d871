/**
 * Virtual machines on stock QEMU, with KVM or software emulation. Importing this registers the driver.
 *
 * @packageDocumentation
 */
export { type KvmOptions, kvm } from './driver.ts'
