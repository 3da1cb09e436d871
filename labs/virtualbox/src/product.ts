import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { LabUnavailable, once, unpacked } from '@microvmi/lab-debian'

const run = promisify(execFile)
const LAUNCHER = fileURLToPath(new URL('../launcher/headless.c', import.meta.url))
const BOOT_SECTOR = fileURLToPath(new URL('../guest/boot.S', import.meta.url))
const FLOPPY_SIZE = 1_474_560
const TOOLS = ['gcc', 'ld', 'unshare', 'nsenter', 'setpriv', 'chroot', 'mount']

/** What a VM is made of. */
export interface Product {
  /** A root with VirtualBox in it, as Debian's packages have it: unpacked, not installed, and never written to. */
  readonly root: string
  /** What starts VMs in place of VBoxHeadless. */
  readonly launcher: string
  /** A floppy disk that boots the guest. */
  readonly floppy: string
  /** The virtual address of the first instruction of the guest's rounds. */
  readonly round: bigint
}

/** Where in the boot sector that is: see boot.S. */
const ROUND_AT = 502

/** Fetches and builds what is not in the cache yet. Throws `LabUnavailable`. */
export async function product(): Promise<Product> {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new LabUnavailable('needs x86-64 Linux')
  if (process.getuid?.() !== 0) throw new LabUnavailable('needs root: VirtualBox runs in a root of its own (chroot)')
  for (const tool of TOOLS) await needs(tool)
  // virtualbox wants its kernel module, and is content with the module's source; base-files
  // makes /lib and its like, libc-bin has the locale of UTF-8.
  const root = await unpacked({ packages: ['virtualbox', 'virtualbox-source', 'base-files', 'libc-bin'], suite: 'sid' })
  const built = await once(`virtualbox-${hashOf(LAUNCHER, BOOT_SECTOR)}`, build)
  const floppy = join(built, 'floppy')
  return { root, launcher: join(built, 'launcher'), floppy, round: readFileSync(floppy).readBigUInt64LE(ROUND_AT) }
}

async function build(directory: string): Promise<void> {
  const path = (name: string) => join(directory, name)
  await run('gcc', ['-O2', '-o', path('launcher'), LAUNCHER, '-ldl'])
  await run('gcc', ['-c', '-o', path('boot.o'), BOOT_SECTOR])
  const place = ['-m', 'elf_x86_64', '-Ttext=0x7c00', '-e', 'start', '--oformat', 'binary']
  await run('ld', [...place, '-o', path('boot'), path('boot.o')])
  if (statSync(path('boot')).size !== 512) throw new Error('the guest does not fit into a boot sector')
  copyFileSync(path('boot'), path('floppy'))
  await run('truncate', ['--size', String(FLOPPY_SIZE), path('floppy')])
}

function hashOf(...files: string[]): string {
  const hash = createHash('sha256')
  for (const file of files) hash.update(readFileSync(file))
  return hash.digest('hex').slice(0, 16)
}

async function needs(tool: string): Promise<void> {
  try {
    await run(tool, ['--version'])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new LabUnavailable(`needs ${tool}`, { cause: error })
    throw error
  }
}
