import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { once, unpacked } from '@microvmi/lab-debian'
import { librariesOf } from '@microvmi/lab-inside'
import { type CpioEntry, cpio, directoriesOf, guestInitramfs } from '@microvmi/lab-qemu'

/** What the outer machine boots. */
export interface MachineImage {
  readonly kernel: string
  readonly initrd: string
}

const INIT = fileURLToPath(new URL('../machine/init', import.meta.url))

/** In this order: each needs those before it. */
const MODULES = [
  ...['drivers/virtio/virtio', 'drivers/virtio/virtio_ring', 'drivers/virtio/virtio_pci_modern_dev'],
  ...['drivers/virtio/virtio_pci_legacy_dev', 'drivers/virtio/virtio_pci'],
  ...['drivers/block/virtio_blk', 'drivers/char/virtio_console'],
  ...['virt/lib/irqbypass', 'arch/x86/kvm/kvm', 'arch/x86/kvm/kvm-amd'],
]

/** What QEMU wants of its data for a PC without display, network and disks: the rest of 200 MB stays out. */
const FIRMWARE = {
  'usr/share/qemu': ['kvmvapic.bin', 'linuxboot.bin', 'linuxboot_dma.bin', 'multiboot.bin', 'multiboot_dma.bin'],
  'usr/share/seabios': ['bios-256k.bin'],
}

/**
 * Debian 12's kernel with KVM, and an initramfs with this Node, with Debian 12's QEMU, and with what the inner guest is
 * booted from (in /guest).
 */
export async function machineImage(): Promise<MachineImage> {
  const root = await unpacked({
    packages: ['qemu-system-x86', 'seabios', 'busybox-static', 'util-linux', 'libstdc++6'],
    metapackages: [{ name: 'linux-image-cloud-amd64', prefix: 'linux-image-6' }],
    suite: 'bookworm',
  })
  const [release] = readdirSync(join(root, 'lib/modules'))
  if (release === undefined) throw new Error(`there is no kernel in ${root}`)
  const kernel = join(root, 'boot', `vmlinuz-${release}`)
  const modules = join(root, 'lib/modules', release, 'kernel')
  const sources = await sourcesOf(root, modules, { kernel, initrd: await guestInitramfs() })
  const key = createHash('sha256')
    .update(JSON.stringify([process.version, ...sources]))
    .update(readFileSync(INIT))
    .digest('hex')
    .slice(0, 16)
  const directory = await once(`kvm-lab/machine-${key}`, (made) => {
    writeFileSync(join(made, 'initrd'), cpio(entriesOf(sources)))
  })
  return { kernel, initrd: join(directory, 'initrd') }
}

/** Where each file of the machine is on this one. */
async function sourcesOf(
  root: string,
  modules: string,
  guest: { kernel: string; initrd: string },
): Promise<Map<string, string>> {
  const programs = {
    'usr/bin/node': process.execPath,
    'usr/bin/qemu-system-x86_64': join(root, 'usr/bin/qemu-system-x86_64'),
    'usr/bin/setpriv': join(root, 'usr/bin/setpriv'),
  }
  const sources = new Map<string, string>([
    ['init', INIT],
    ['bin/busybox', join(root, 'bin/busybox')],
    ['lib64/ld-linux-x86-64.so.2', join(root, 'lib64/ld-linux-x86-64.so.2')],
    ['guest/kernel', guest.kernel],
    ['guest/initrd', guest.initrd],
    ...Object.entries(programs),
  ])
  for (const program of Object.values(programs)) {
    for (const library of await librariesOf(program, root)) sources.set(library.slice(root.length + 1), library)
  }
  for (const module of MODULES) sources.set(`modules/${baseName(module)}.ko`, join(modules, `${module}.ko`))
  for (const [directory, files] of Object.entries(FIRMWARE)) {
    for (const file of files) sources.set(`${directory}/${file}`, join(root, directory, file))
  }
  return sources
}

function entriesOf(sources: ReadonlyMap<string, string>): CpioEntry[] {
  return [
    ...directoriesOf([...sources.keys(), 'modules/order', 'dev/console']),
    { path: 'dev/console', type: 'console' },
    { path: 'modules/order', type: 'file', data: MODULES.map(baseName).join('\n') },
    ...[...sources].map(([path, source]): CpioEntry => {
      return { path, type: 'executable', data: readFileSync(realpathSync(source)) }
    }),
  ]
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}
