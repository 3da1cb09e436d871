import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { LabUnavailable, once, unpacked } from '@microvmi/lab-debian'
import { initramfs } from './initramfs.ts'

const run = promisify(execFile)
const guest = fileURLToPath(new URL('../guest', import.meta.url))

/** gcc's options for the guest's program. */
const FLAGS = ['-O2', '-static', '-s', '-Wall', '-Wextra', '-Werror']

/** What a guest is started from. */
export interface Images {
  /** The directory that Debian's packages were unpacked into. */
  readonly root: string
  readonly kernel: string
  readonly initrd: string
  /** What executes the guest's instructions: software emulation, or the KVM of this machine. */
  readonly accelerator: 'tcg' | 'kvm'
}

/**
 * QEMU and a kernel from Debian's packages, and the guest's program, compiled. In the machine of labs/kvm these are
 * there already: `MICROVMI_KVM_GUEST` names the directory with kernel and initrd, and QEMU is the machine's own.
 */
export async function images(): Promise<Images> {
  const { MICROVMI_KVM_GUEST: there } = process.env
  if (there) return { root: '/', kernel: join(there, 'kernel'), initrd: join(there, 'initrd'), accelerator: 'kvm' }
  const root = await unpacked({
    packages: ['qemu-system-x86', 'seabios'],
    metapackages: [{ name: 'linux-image-cloud-amd64', prefix: 'linux-image-6' }],
  })
  const kernel = readdirSync(join(root, 'boot')).find((file) => file.startsWith('vmlinuz-'))
  if (!kernel) throw new Error(`there is no kernel in ${root}/boot`)
  return { root, kernel: join(root, 'boot', kernel), initrd: await guestInitramfs(), accelerator: 'tcg' }
}

/** The initramfs with the guest's program. */
export async function guestInitramfs(): Promise<string> {
  const directory = await once(join('qemu-guest', keyOf(FLAGS, inputs())), async (made) => {
    const init = join(made, 'init')
    try {
      await run('gcc', [...FLAGS, '-o', init, join(guest, 'init.c')])
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new LabUnavailable('needs gcc', { cause: error })
      throw error
    }
    writeFileSync(join(made, 'initrd'), initramfs(readFileSync(init)))
    rmSync(init)
  })
  return join(directory, 'initrd')
}

/** All that the guest is built from: its sources, and what packs them. */
function inputs(): string[] {
  return [
    ...readdirSync(guest)
      .sort()
      .map((file) => join(guest, file)),
    ...['./initramfs.ts', './cpio.ts'].map((file) => fileURLToPath(new URL(file, import.meta.url))),
  ]
}

/** A name for what comes of these options and files. */
export function keyOf(options: readonly string[], files: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(options))
  for (const file of files) {
    const content = readFileSync(file)
    hash.update(JSON.stringify([basename(file), content.length])).update(content)
  }
  return hash.digest('hex').slice(0, 16)
}
