import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { once } from '@microvmi/lab-debian'

const run = promisify(execFile)
const sources = fileURLToPath(new URL('../baselines', import.meta.url))

/** Compiles the C programs; the directory that they are in. */
export function buildBaselines(): Promise<string> {
  const hash = createHash('sha256')
  for (const file of readdirSync(sources).sort()) hash.update(readFileSync(join(sources, file)))
  return once(join('bench', hash.digest('hex').slice(0, 16)), async (directory) => {
    for (const file of readdirSync(sources).filter((name) => name.endsWith('.c'))) {
      await run('gcc', ['-O2', '-Wall', '-Werror', '-o', join(directory, file.slice(0, -2)), join(sources, file)])
    }
  })
}

/** The number that a baseline prints. */
export function runBaseline(path: string, args: readonly (string | number)[]): number {
  return Number(execFileSync(path, args.map(String), { encoding: 'utf8' }))
}

/** Nanoseconds that a command takes as a whole process. */
export function timeCommand(command: string, args: readonly string[]): number {
  const started = performance.now()
  execFileSync(command, args, { stdio: 'ignore' })
  return (performance.now() - started) * 1e6
}
