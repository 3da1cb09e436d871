import { unpacked } from '@microvmi/lab-debian'
import { emulator, type Machine, qemuMachine } from '@microvmi/lab-inside'
import { machineImage } from './machine-image.ts'

/** Debian 12's own QEMU (7.2) does not arm an inner guest's debug registers in VMRUN: a newer one is needed. */
const SUITE = ['bookworm-backports', 'bookworm']

/** Vendor, SVM and nested paging of AMD; without what Debian 12's KVM trips over in emulation, and without slow vectors. */
const PROCESSOR = 'EPYC,+svm,+npt,-smap,-monitor,-xsave,-avx,-avx2,-fma,-f16c'
const MEMORY = '2048'
const KERNEL_ARGUMENTS = 'console=ttyS0 mitigations=off nokaslr quiet loglevel=4 tsc=reliable panic=-1'

/** The machine with KVM. */
export async function outerMachine(): Promise<Machine> {
  const [root, { kernel, initrd }] = await Promise.all([
    unpacked({ packages: ['qemu-system-x86', 'seabios'], suite: SUITE }),
    machineImage(),
  ])
  return qemuMachine(await emulator(root), [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', PROCESSOR, '-smp', '1', '-m', MEMORY],
    ...['-display', 'none', '-nodefaults', '-nic', 'none', '-no-user-config', '-no-reboot'],
    ...['-kernel', kernel, '-initrd', initrd, '-append', KERNEL_ARGUMENTS],
  ])
}

/** What programs in it find. */
export const ENVIRONMENT = { MICROVMI_KVM_GUEST: '/guest' }
