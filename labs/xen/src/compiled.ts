import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { LabUnavailable, once } from '@microvmi/lab-debian'

const run = promisify(execFile)
const FLAGS = ['-O2', '-static', '-s', '-Wall', '-Werror']

/** A program of one C source, linked statically: it runs in dom0 and in guests, whatever libraries they have. */
export async function compiled(source: string, headers: readonly string[] = []): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(FLAGS))
  for (const file of [source, ...headers]) hash.update(readFileSync(file))
  const name = basename(source, '.c')
  const directory = await once(`xen-lab/${name}-${hash.digest('hex').slice(0, 16)}`, async (made) => {
    await compile(source, join(made, name))
  })
  return join(directory, name)
}

async function compile(source: string, program: string): Promise<void> {
  try {
    await run('gcc', [...FLAGS, '-o', program, source])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new LabUnavailable('needs gcc')
    throw error
  }
}
