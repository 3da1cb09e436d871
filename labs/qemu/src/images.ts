import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { LabUnavailable, once, unpacked } from '@microvmi/lab-debian'
import { initramfs } from './initramfs.ts'

const run = promisify(execFile)
const guest = fileURLToPath(new URL('../guest', import.meta.url))

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
  const hash = createHash('sha256')
  for (const file of readdirSync(guest).sort()) hash.update(readFileSync(join(guest, file)))
  const directory = await once(join('qemu-guest', hash.digest('hex').slice(0, 16)), async (made) => {
    const init = join(made, 'init')
    try {
      await run('gcc', ['-O2', '-static', '-s', '-Wall', '-Werror', '-o', init, join(guest, 'init.c')])
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new LabUnavailable('needs gcc')
      throw error
    }
    writeFileSync(join(made, 'initrd'), initramfs(readFileSync(init)))
    rmSync(init)
  })
  return join(directory, 'initrd')
}
