/**
 * Virtual machines on stock QEMU, with KVM or software emulation, and on KVM with introspection patches. Importing this
 * registers both drivers.
 *
 * @packageDocumentation
 */
export { type KvmOptions, kvm } from './driver.ts'
export { kvmi } from './kvmi/driver.ts'
export type { KvmiOptions } from './kvmi/options.ts'
