import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { cacheDirectory } from './cache.ts'
import { locked } from './lock.ts'

/**
 * A directory in the cache that is made once: `make` fills one of another name, which takes this one when it is whole.
 * Processes that want the same at the same time wait for the first; what a killed one left behind is thrown away.
 */
export async function once(name: string, make: (directory: string) => Promise<void> | void): Promise<string> {
  const directory = join(cacheDirectory(), name)
  if (existsSync(directory)) return directory
  return locked(name, async () => {
    if (existsSync(directory)) return directory
    // Who holds the lock is the only one at work: all that is unfinished belongs to processes that have ended.
    removeUnfinished(directory)
    const unfinished = `${directory}.unfinished-${randomUUID()}`
    mkdirSync(unfinished, { recursive: true })
    try {
      await make(unfinished)
      renameSync(unfinished, directory)
    } finally {
      rmSync(unfinished, { recursive: true, force: true })
    }
    return directory
  })
}

function removeUnfinished(directory: string): void {
  const parent = dirname(directory)
  if (!existsSync(parent)) return
  for (const name of readdirSync(parent)) {
    if (name.startsWith(`${basename(directory)}.unfinished`)) rmSync(join(parent, name), { recursive: true })
  }
}
