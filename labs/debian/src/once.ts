import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { cacheDirectory } from './cache.ts'

const DEADLINE = 20 * 60_000

/**
 * A directory in the cache that is made once: `make` fills a temporary one, which takes its name when it is whole.
 * Processes that want the same at the same time wait for the first; what a killed one left behind is thrown away.
 */
export async function once(name: string, make: (directory: string) => Promise<void> | void): Promise<string> {
  const directory = join(cacheDirectory(), name)
  if (existsSync(directory)) return directory
  const release = await lock(`${directory}.lock`)
  try {
    if (existsSync(directory)) return directory
    const unfinished = `${directory}.unfinished`
    rmSync(unfinished, { recursive: true, force: true })
    mkdirSync(unfinished, { recursive: true })
    await make(unfinished)
    renameSync(unfinished, directory)
    return directory
  } finally {
    release()
  }
}

async function lock(path: string): Promise<() => void> {
  mkdirSync(join(path, '..'), { recursive: true })
  for (const end = Date.now() + DEADLINE; Date.now() < end; await setTimeout(200)) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' })
      return () => rmSync(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (!isAlive(path)) rmSync(path, { force: true })
    }
  }
  throw new Error(`${path} was held by another process for ${DEADLINE / 60_000} minutes: remove it if none is at work`)
}

function isAlive(path: string): boolean {
  try {
    return existsSync(`/proc/${Number(readFileSync(path, 'utf8')) || process.pid}`)
  } catch (error) {
    // Released between two looks.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
