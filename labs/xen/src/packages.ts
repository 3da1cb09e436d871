import { readdirSync } from 'node:fs'
import { unpacked } from '@microvmi/lab-debian'
import { repackedKernel } from './repacked-kernel.ts'

/** Debian's packages, unpacked. */
export interface Packages {
  readonly root: string
  /** Linux, for dom0 and for the guests that Xen's toolstack loads. */
  readonly kernel: string
  /** The same, as Debian has it: it unpacks itself, as an HVM guest's must. */
  readonly ownKernel: string
}

/**
 * Debian 12's Xen 4.17, its tools, kernel and QEMU 7.2, whatever this machine runs: what is known to work together.
 * Throws `LabUnavailable` where they cannot be had.
 */
export async function packages(): Promise<Packages> {
  const root = await unpacked({
    suite: 'bookworm',
    packages: [
      'xen-utils-4.17',
      'xenstore-utils',
      'qemu-system-xen',
      'qemu-system-x86',
      'seabios',
      'libstdc++6',
      'lz4',
      'xz-utils',
    ],
    alone: ['xen-hypervisor-4.17-amd64', 'xen-utils-common', 'libxen-dev', 'libxenmisc4.17', 'busybox-static'],
    metapackages: [{ name: 'linux-image-amd64', prefix: 'linux-image-6' }],
  })
  const kernel = readdirSync(`${root}/boot`).find((file) => file.startsWith('vmlinuz-'))
  if (!kernel) throw new Error(`there is no kernel in ${root}/boot`)
  const ownKernel = `${root}/boot/${kernel}`
  return { root, kernel: await repackedKernel(root, ownKernel), ownKernel }
}
