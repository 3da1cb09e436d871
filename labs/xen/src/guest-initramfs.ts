import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { once } from '@microvmi/lab-debian'
import { cpio } from '@microvmi/lab-qemu'
import { compiled } from './compiled.ts'
import { modules } from './modules.ts'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** What the guests run, PVH and HVM alike: the program of guest/init.c, and the kernel's module to write MSRs. */
export async function guestInitramfs(root: string): Promise<string> {
  const init = await compiled(here('../guest/init.c'), [here('../../qemu/guest/btf.h')])
  const hash = createHash('sha256').update(`${basename(root)} ${basename(dirname(init))}`)
  const directory = await once(`xen-lab/guest-${hash.digest('hex').slice(0, 16)}`, (made) => {
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
  })
  return join(directory, 'initrd')
}
