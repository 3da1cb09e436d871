import { readdirSync } from 'node:fs'
import { type PackageSet, unpacked } from '@microvmi/lab-debian'
import { repackedKernel } from './repacked-kernel.ts'

/** Debian's packages, unpacked. */
export interface Packages {
  /** Which Xen this is, such as `4.17`: its tools' directory and the hypervisor's file are called so. */
  readonly version: string
  /** The hypervisor, its tools and libraries, and the libc that these are for. */
  readonly dom0: string
  /** The emulator, Linux with its modules, and the programs that repack it. */
  readonly machine: string
  /** Linux, for dom0 and for the guests that Xen's toolstack loads. */
  readonly kernel: string
  /** The same, as Debian has it: it unpacks itself, as an HVM guest's must. */
  readonly ownKernel: string
}

/** Debian 12's Xen 4.17 and its tools, kernel and QEMU 7.2: what is known to work together. */
const BOOKWORM: PackageSet = {
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
}

/** Debian 13's Xen and tools, which need its libc. */
const TRIXIE: PackageSet = {
  suite: 'trixie',
  packages: ['xen-utils-4.20', 'xenstore-utils', 'qemu-system-xen', 'seabios', 'libstdc++6'],
  alone: ['xen-hypervisor-4.20-amd64', 'xen-utils-common', 'libxen-dev', 'libxenmisc4.20', 'busybox-static'],
}

/** What the versions of Xen come from. */
const XEN = { '4.17': BOOKWORM, '4.20': TRIXIE } as const satisfies Record<string, PackageSet>

/** A version of Xen that the machine can boot: those that releases of Debian have. */
export type XenVersion = keyof typeof XEN

export const XEN_VERSIONS = Object.keys(XEN) as XenVersion[]

/**
 * This Xen with its tools, and Debian 12's kernel and QEMU under it, whatever this machine runs. Throws
 * `LabUnavailable` where they cannot be had.
 */
export async function packages(version: XenVersion): Promise<Packages> {
  const [dom0, machine] = await Promise.all([unpacked(XEN[version]), unpacked(BOOKWORM)])
  const kernel = readdirSync(`${machine}/boot`).find((file) => file.startsWith('vmlinuz-'))
  if (!kernel) throw new Error(`there is no kernel in ${machine}/boot`)
  const ownKernel = `${machine}/boot/${kernel}`
  return { version, dom0, machine, kernel: await repackedKernel(machine, ownKernel), ownKernel }
}
