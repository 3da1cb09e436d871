import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { once } from '@microvmi/lab-debian'
import { interceptingInt3 } from '@microvmi/lab-kvm'

/** A program with the arguments that come before its own. */
export interface Emulator {
  readonly command: string
  readonly leading: readonly string[]
  readonly environment: Readonly<Record<string, string>>
}

/**
 * Debian 12's QEMU 7.2, with the one byte changed that lets a hypervisor in it see software breakpoints. Under 10.0 a PVH
 * guest of Xen's dies early.
 */
export async function emulator(root: string): Promise<Emulator> {
  const directory = await once(`xen-lab/qemu-${basename(root)}`, (made) => {
    const file = join(made, 'qemu-system-x86_64')
    writeFileSync(file, interceptingInt3(readFileSync(join(root, 'usr/bin/qemu-system-x86_64'))))
    chmodSync(file, 0o755)
  })
  const libraries = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'].map((path) => join(root, path)).join(':')
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].flatMap((path) => ['-L', join(root, path)])
  return {
    // Its own loader and libraries: then it does not matter which ones this machine has.
    command: join(root, 'lib64/ld-linux-x86-64.so.2'),
    leading: ['--library-path', libraries, join(directory, 'qemu-system-x86_64'), ...firmware],
    environment: { QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu') },
  }
}
