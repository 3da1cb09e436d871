import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { once as made, unpacked } from '@microvmi/lab-debian'
import type { Plan } from './plan.ts'
import type { Measured } from './series.ts'

const run = promisify(execFile)
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** Seconds for all of it, with the boots of the machine and its guest. */
const TIMEOUT = 1800

/** Measures the tasks on a guest of Xen's, in dom0 of the lab's machine: one boot for all. */
export async function measureOnXen(
  plan: Plan,
  copies: readonly string[],
  report: (measured: Measured) => void,
): Promise<void> {
  const program = await buildXenProgram()
  const copied = [program, ...copies].flatMap((file) => ['--copy', file])
  const job = ['node', here('./xen-dom0.ts'), placeOf(program), JSON.stringify(plan)]
  const words = ['--import', 'tsx', here('../../labs/xen/src/main.ts'), 'run', '--timeout', String(TIMEOUT)]
  const child = spawn(process.execPath, [...words, ...copied, '--', ...job], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const ended = once(child, 'exit')
    for await (const line of createInterface({ input: child.stdout })) report(JSON.parse(line) as Measured)
    const [status] = await ended
    if (status !== 0) throw new Error(`the measurement in dom0 ended with status ${status}`)
  } finally {
    // The machine ends with it.
    child.kill()
  }
}

/** Where the lab's `run` puts a copied file, as seen from the program's directory there. */
function placeOf(file: string): string {
  const path = relative('.', file)
  return path.startsWith('..') ? file.slice(1) : path
}

/** Compiles the C program against the libraries of the lab's Xen, statically: dom0 may have another libc than we. */
function buildXenProgram(): Promise<string> {
  const source = here('./baselines/xen.c')
  const hash = createHash('sha256')
  for (const file of [source, here('../baselines/timing.h')]) hash.update(readFileSync(file))
  return made(join('bench', `xen-${hash.digest('hex').slice(0, 16)}`), async (directory) => {
    const root = await unpacked({ suite: 'bookworm', packages: [], alone: ['libxen-dev'] })
    const libraries = ['xenctrl', 'xenforeignmemory', 'xenevtchn', 'xendevicemodel', 'xencall', 'xentoollog']
    await run('gcc', [
      ...['-O2', '-Wall', '-Werror', '-static', `-I${root}/usr/include`, '-o', join(directory, 'xen'), source],
      `-L${root}/usr/lib/x86_64-linux-gnu`,
      ...[...libraries, 'xentoolcore'].map((name) => `-l${name}`),
    ])
  }).then((directory) => join(directory, 'xen'))
}
