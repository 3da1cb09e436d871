import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
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

/** Below usr/lib/xen-VERSION/bin. */
const TOOLS = ['xl', 'xenstored', 'xenconsoled', 'xenconsole', 'xen-init-dom0', 'xenctx', 'xen-hvmctx']
const PROGRAMS = [
  ...['read', 'write', 'ls', 'list', 'rm', 'watch'].map((name) => `usr/bin/xenstore-${name}`),
  // An HVM guest's device model.
  'usr/libexec/xen-qemu-system-i386',
]

/** What the toolstack and the device model of an HVM guest read. */
const DATA = [
  'usr/share/seabios/bios-256k.bin',
  'usr/share/qemu/keymaps/en-us',
  ...['kvmvapic.bin', 'linuxboot.bin', 'linuxboot_dma.bin'].map((name) => `usr/share/qemu/${name}`),
]

/** For programs that load Xen's libraries themselves. */
const LIBRARY = /^libxen.*\.so\./

/** Xen, and dom0 with its tools, this Node and what the guests are booted from. */
export async function machineImage(packages: Packages): Promise<MachineImage> {
  const { version, dom0, machine, kernel } = packages
  const sources = await sourcesOf(packages, await guestInitramfs(machine))
  sources.set('usr/bin/debug-port', await compiled(here('../machine/debug-port.c')))
  const hash = createHash('sha256').update(
    JSON.stringify([basename(dom0), basename(machine), process.version, MODULES, [...sources.keys()]]),
  )
  for (const file of ['init', 'debug-port.c']) hash.update(readFileSync(here(`../machine/${file}`)))
  hash.update(sources.get('guest/initrd') ?? '')
  const directory = await once(`xen-lab/machine-${hash.digest('hex').slice(0, 16)}`, (made) => {
    // QEMU loads no compressed hypervisor.
    writeFileSync(join(made, 'xen'), gunzipSync(readFileSync(join(dom0, `boot/xen-${version}-amd64.gz`))))
    writeFileSync(join(made, 'initrd'), cpio(entriesOf(machine, sources)))
  })
  return { xen: join(directory, 'xen'), kernel, initrd: join(directory, 'initrd') }
}

/** Where each file of dom0 is on this machine. */
async function sourcesOf(
  { version, dom0: root, kernel, ownKernel }: Packages,
  guestInitrd: string,
): Promise<Map<string, string>> {
  const own = `usr/lib/xen-${version}`
  const programs = [...TOOLS.map((name) => `${own}/bin/${name}`), ...PROGRAMS]
  const sources = new Map<string, string>([
    ['init', here('../machine/init')],
    ['bin/busybox', busyboxOf(root)],
    ['lib64/ld-linux-x86-64.so.2', loaderOf(root)],
    ['guest/kernel', kernel],
    ['guest/kernel-hvm', ownKernel],
    ['guest/initrd', guestInitrd],
    ['usr/bin/node', process.execPath],
  ])
  for (const path of [...programs, `${own}/boot/hvmloader`, ...DATA]) sources.set(path, join(root, path))
  const libraries = 'usr/lib/x86_64-linux-gnu'
  for (const name of readdirSync(join(root, libraries))) {
    if (LIBRARY.test(name)) sources.set(`${libraries}/${name}`, join(root, libraries, name))
  }
  const loaded = [...sources].filter(
    ([path]) => path === 'usr/bin/node' || programs.includes(path) || LIBRARY.test(basename(path)),
  )
  for (const [, program] of loaded) {
    for (const library of await librariesOf(program, root)) sources.set(library.slice(root.length + 1), library)
  }
  return sources
}

/** Debian 13's packages have no files in /bin any more. */
function busyboxOf(root: string): string {
  const merged = join(root, 'usr/bin/busybox')
  return existsSync(merged) ? merged : join(root, 'bin/busybox')
}

function entriesOf(machine: string, sources: ReadonlyMap<string, string>): CpioEntry[] {
  const ordered = modules(machine, MODULES)
  return [
    ...directoriesOf([...sources.keys(), 'modules/order', 'dev/console']),
    { path: 'dev/console', type: 'console' },
    { path: 'modules/order', type: 'file', data: ordered.map(({ name }) => name).join('\n') },
    ...ordered.map(({ name, bytes }): CpioEntry => ({ path: `modules/${name}.ko`, type: 'file', data: bytes })),
    ...[...sources].map(([path, source]): CpioEntry => ({ path, type: 'executable', data: readFileSync(source) })),
  ]
}
