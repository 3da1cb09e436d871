import { emulator, type Machine, qemuMachine } from '@microvmi/lab-inside'
import { machineImage } from './machine-image.ts'
import { packages, type XenVersion } from './packages.ts'

/**
 * Vendor, SVM and nested paging of AMD. With SMAP dom0 dies early, with MONITOR Xen panics in its idle loop, with XSAVE
 * and AVX programs in dom0 and in guests are killed by SIGSEGV at random.
 */
const PROCESSOR = 'EPYC,+svm,+npt,-smap,-monitor,-xsave,-avx,-avx2,-fma,-f16c'
/** MiB. dom0 has its kernel's copy of the initramfs and the files unpacked from it. */
const MEMORY = { machine: 3072, dom0: 1536 }

const XEN_ARGUMENTS = [
  'com1=115200,8n1 console=com1',
  `dom0_mem=${MEMORY.dom0}M,max:${MEMORY.dom0}M dom0_max_vcpus=1 dom0_vcpus_pin`,
  'ucode=no spec-ctrl=no bootscrub=0',
].join(' ')
const DOM0_ARGUMENTS = 'console=hvc0 rdinit=/init mitigations=off quiet loglevel=4 panic=-1'

/** How the machine is to be. */
export interface XenMachineOptions {
  /** Default 4.17. */
  readonly version?: XenVersion
  /** Default 1. dom0 has one of them, alone if its guests are kept off it. */
  readonly cpus?: number
}

/** The machine with Xen: its init is dom0's, and brings Xen's services up before it runs a job. */
export async function xenMachine({ version = '4.17', cpus = 1 }: XenMachineOptions = {}): Promise<Machine> {
  const debian = await packages(version)
  const { xen, kernel, initrd } = await machineImage(debian)
  // The hypervisor is loaded by the multiboot protocol: -initrd is its modules, each a file with its arguments.
  const boot = ['-kernel', xen, '-append', XEN_ARGUMENTS, '-initrd', `${kernel} ${DOM0_ARGUMENTS},${initrd}`]
  return qemuMachine(await emulator(debian.machine), [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', PROCESSOR],
    ...['-smp', String(cpus), '-m', String(MEMORY.machine), ...boot],
    ...['-display', 'none', '-nodefaults', '-nic', 'none', '-no-user-config', '-no-reboot'],
  ])
}

/** What programs in dom0 find. */
export const ENVIRONMENT = { MICROVMI_XEN_GUESTS: '/guest' }
