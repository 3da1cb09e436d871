import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { LabUnavailable, once } from '@microvmi/lab-debian'

const run = promisify(execFile)

/** Intel's VMX with EPT, the monitor trap flag and VMFUNC. Bochs 3.0 does not compile without EVEX. */
const OPTIONS = [
  ...['--enable-cpu-level=6', '--enable-x86-64', '--enable-vmx=2', '--enable-avx', '--enable-evex'],
  ...['--enable-monitor-mwait', '--enable-all-optimizations', '--enable-pci', '--enable-cdrom', '--enable-logging'],
  ...['--disable-debugger', '--disable-debugger-gui', '--disable-docbook', '--with-nogui'],
]

/** Bochs, built once from the sources in `root`; the program. Throws `LabUnavailable` where it cannot be built. */
export async function bochs(root: string): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([basename(root), OPTIONS]))
  const directory = await once(`xen-lab/bochs-${hash.digest('hex').slice(0, 16)}`, async (made) => {
    const build = mkdtempSync(join(tmpdir(), 'microvmi-bochs-'))
    try {
      cpSync(join(root, 'usr/src/bochs'), build, { recursive: true })
      const script = `./configure ${OPTIONS.join(' ')} && make -j2`
      await run('sh', ['-c', script], { cwd: build, maxBuffer: 2 ** 26 })
      copyFileSync(join(build, 'bochs'), join(made, 'bochs'))
    } catch (error) {
      throw new LabUnavailable(`Bochs could not be built (it needs make and g++): ${lastOf(error)}`, { cause: error })
    } finally {
      rmSync(build, { recursive: true, force: true })
    }
  })
  return join(directory, 'bochs')
}

function lastOf(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string }
  return (stderr || message || String(error)).slice(-1000)
}
