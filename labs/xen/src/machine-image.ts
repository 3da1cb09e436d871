import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { once } from '@microvmi/lab-debian'
import { librariesOf, loaderOf } from '@microvmi/lab-inside'
import { type CpioEntry, cpio, directoriesOf } from '@microvmi/lab-qemu'
import { compiled } from './compiled.ts'
import { guestInitramfs } from './guest-initramfs.ts'
import { modules } from './modules.ts'
import type { Packages } from './packages.ts'

/** What the machine boots: the hypervisor, and dom0's kernel and initramfs as its modules. */
export interface MachineImage {
  readonly xen: string
  readonly kernel: string
  readonly initrd: string
}

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** The modules that dom0 needs to reach the lab, and the hypervisor. */
const MODULES = [
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
  'xen-privcmd',
  'xen-evtchn',
  'xen-gntdev',
  'xen-gntalloc',
  'xenfs',
]

const TOOLS = 'usr/lib/xen-4.17/bin'
const PROGRAMS = [
  ...['xl', 'xenstored', 'xenconsoled', 'xenconsole', 'xen-init-dom0', 'xenctx', 'xen-hvmctx'].map(
    (name) => `${TOOLS}/${name}`,
  ),
  ...['read', 'write', 'ls', 'list', 'rm', 'watch'].map((name) => `usr/bin/xenstore-${name}`),
  // An HVM guest's device model.
  'usr/libexec/xen-qemu-system-i386',
]

/** What the toolstack and the device model of an HVM guest read. */
const DATA = [
  'usr/lib/xen-4.17/boot/hvmloader',
  'usr/share/seabios/bios-256k.bin',
  'usr/share/qemu/keymaps/en-us',
  ...['kvmvapic.bin', 'linuxboot.bin', 'linuxboot_dma.bin'].map((name) => `usr/share/qemu/${name}`),
]

/** For programs that load Xen's libraries themselves. */
const LIBRARY = /^libxen.*\.so\./

/** Xen, and dom0 with its tools, this Node and what the guests are booted from. */
export async function machineImage({ root, kernel, ownKernel }: Packages): Promise<MachineImage> {
  const sources = await sourcesOf(root, { kernel, ownKernel, initrd: await guestInitramfs(root) })
  sources.set('usr/bin/debug-port', await compiled(here('../machine/debug-port.c')))
  const hash = createHash('sha256').update(
    JSON.stringify([basename(root), process.version, MODULES, [...sources.keys()]]),
  )
  for (const file of ['init', 'debug-port.c']) hash.update(readFileSync(here(`../machine/${file}`)))
  hash.update(sources.get('guest/initrd') ?? '')
  const directory = await once(`xen-lab/machine-${hash.digest('hex').slice(0, 16)}`, (made) => {
    // QEMU loads no compressed hypervisor.
    writeFileSync(join(made, 'xen'), gunzipSync(readFileSync(join(root, 'boot/xen-4.17-amd64.gz'))))
    writeFileSync(join(made, 'initrd'), cpio(entriesOf(root, sources)))
  })
  return { xen: join(directory, 'xen'), kernel, initrd: join(directory, 'initrd') }
}

/** Where each file of dom0 is on this machine. */
async function sourcesOf(
  root: string,
  guest: { kernel: string; ownKernel: string; initrd: string },
): Promise<Map<string, string>> {
  const sources = new Map<string, string>([
    ['init', here('../machine/init')],
    ['bin/busybox', join(root, 'bin/busybox')],
    ['lib64/ld-linux-x86-64.so.2', loaderOf(root)],
    ['guest/kernel', guest.kernel],
    ['guest/kernel-hvm', guest.ownKernel],
    ['guest/initrd', guest.initrd],
    ['usr/bin/node', process.execPath],
  ])
  for (const path of [...PROGRAMS, ...DATA]) sources.set(path, join(root, path))
  const libraries = 'usr/lib/x86_64-linux-gnu'
  for (const name of readdirSync(join(root, libraries))) {
    if (LIBRARY.test(name)) sources.set(`${libraries}/${name}`, join(root, libraries, name))
  }
  const loaded = [...sources].filter(
    ([path]) => path === 'usr/bin/node' || PROGRAMS.includes(path) || LIBRARY.test(basename(path)),
  )
  for (const [, program] of loaded) {
    for (const library of await librariesOf(program, root)) sources.set(library.slice(root.length + 1), library)
  }
  return sources
}

function entriesOf(root: string, sources: ReadonlyMap<string, string>): CpioEntry[] {
  const ordered = modules(root, MODULES)
  return [
    ...directoriesOf([...sources.keys(), 'modules/order', 'dev/console']),
    { path: 'dev/console', type: 'console' },
    { path: 'modules/order', type: 'file', data: ordered.map(({ name }) => name).join('\n') },
    ...ordered.map(({ name, bytes }): CpioEntry => ({ path: `modules/${name}.ko`, type: 'file', data: bytes })),
    ...[...sources].map(([path, source]): CpioEntry => ({ path, type: 'executable', data: readFileSync(source) })),
  ]
}
