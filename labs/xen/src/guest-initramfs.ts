import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { LabUnavailable, once } from '@microvmi/lab-debian'
import { cpio } from '@microvmi/lab-qemu'
import { modules } from './modules.ts'

const run = promisify(execFile)
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** What the guests run, PVH and HVM alike: the program of guest/init.c, and the kernel's module to write MSRs. */
export async function guestInitramfs(root: string): Promise<string> {
  const source = here('../guest/init.c')
  const hash = createHash('sha256').update(basename(root))
  for (const file of [source, here('../../qemu/guest/btf.h')]) hash.update(readFileSync(file))
  const directory = await once(`xen-lab/guest-${hash.digest('hex').slice(0, 16)}`, async (made) => {
    const init = join(made, 'init')
    await compile(source, init)
    writeFileSync(
      join(made, 'initrd'),
      cpio([
        { path: 'dev', type: 'directory' },
        { path: 'dev/console', type: 'console' },
        { path: 'init', type: 'executable', data: readFileSync(init) },
        ...modules(root, ['msr']).map(
          ({ name, bytes }) => ({ path: `${name}.ko`, type: 'file', data: bytes }) as const,
        ),
      ]),
    )
    rmSync(init)
  })
  return join(directory, 'initrd')
}

async function compile(source: string, program: string): Promise<void> {
  try {
    await run('gcc', ['-O2', '-static', '-s', '-Wall', '-Werror', '-o', program, source])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new LabUnavailable('needs gcc')
    throw error
  }
}
