import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { loaderOf } from '@microvmi/lab-inside'

const run = promisify(execFile)

/** What the disc's GRUB boots. */
export interface Boot {
  readonly xen: { readonly file: string; readonly arguments: string }
  readonly kernel: { readonly file: string; readonly arguments: string }
  readonly initrd: string
}

/**
 * Makes a CD that boots Xen by the multiboot protocol (the second version of it ends in a triple fault).
 * @param root where GRUB and xorriso were unpacked
 */
export async function bootDisc(root: string, { xen, kernel, initrd }: Boot, path: (name: string) => string) {
  const library = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'].map((name) => join(root, name)).join(':')
  const tool = (name: string, ...words: string[]) =>
    run(loaderOf(root), ['--library-path', library, join(root, 'usr/bin', name), ...words])
  const lines = [
    'set root=(cd)',
    `multiboot /xen ${xen.arguments}`,
    `module /kernel ${kernel.arguments}`,
    'module /initrd',
    'boot',
  ]
  writeFileSync(path('grub.cfg'), `${lines.join('\n')}\n`)
  const modules = ['biosdisk', 'iso9660', 'multiboot']
  const grub = ['-d', join(root, 'usr/lib/grub/i386-pc'), '-O', 'i386-pc-eltorito', '-p', '/', '-c', path('grub.cfg')]
  await tool('grub-mkimage', ...grub, '-o', path('grub'), ...modules)
  const files = { grub: path('grub'), xen: xen.file, kernel: kernel.file, initrd }
  const elTorito = ['-b', 'grub', '-no-emul-boot', '-boot-load-size', '4', '-boot-info-table']
  const grafts = Object.entries(files).map(([name, file]) => `/${name}=${file}`)
  await tool('xorriso', '-as', 'mkisofs', '-quiet', '-R', ...elTorito, '-o', path('disc'), '-graft-points', ...grafts)
  return path('disc')
}
