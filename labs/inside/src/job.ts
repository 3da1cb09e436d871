import { existsSync, readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { bundled, koffiFiles } from './bundle.ts'
import type { Job } from './machine.ts'

/** Where a job's files are in the machine. */
const DIRECTORY = 'job'

/** A command, with the TypeScript files among its arguments bundled, and with files to copy to where they are here. */
export async function jobOf(
  command: readonly string[],
  copies: readonly string[] = [],
): Promise<Pick<Job, 'command' | 'files' | 'environment'>> {
  const files = new Map<string, Uint8Array>()
  for (const [path, content] of koffiFiles()) files.set(`${DIRECTORY}/${path}`, content)
  for (const copy of copies) files.set(`${DIRECTORY}/${placeOf(copy)}`, readFileSync(copy))
  const words: string[] = []
  for (const word of command) {
    if (!/\.[cm]?ts$/.test(word) || !existsSync(word)) {
      words.push(word)
      continue
    }
    const path = `${placeOf(word)}.mjs`
    files.set(`${DIRECTORY}/${path}`, await bundled(resolve(word)))
    words.push(path)
  }
  return {
    command: words,
    files,
    environment: { NODE_OPTIONS: '--enable-source-maps', NO_COLOR: '1' },
  }
}

/** A file's path below the directory of the job: the same as below the current one, or as from the root. */
function placeOf(file: string): string {
  const path = relative('.', file)
  return path.startsWith('..') ? resolve(file).slice(1) : path
}
