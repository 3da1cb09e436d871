import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { cacheDirectory } from './cache.ts'
import { LabUnavailable } from './lab-unavailable.ts'

const MINUTES = 20

/**
 * Does `work` while no other process, and nobody else in this one, does anything under the same name. The kernel keeps
 * the lock (flock(2)), for as long as a child lives that ends with this process: nothing that a killed process left
 * behind can hold it. Throws `LabUnavailable` where there is no flock(1).
 */
export async function locked<T>(name: string, work: () => Promise<T> | T, minutes = MINUTES): Promise<T> {
  const release = await lock(name, minutes)
  try {
    return await work()
  } finally {
    await release()
  }
}

async function lock(name: string, minutes: number): Promise<() => Promise<void>> {
  const locks = join(cacheDirectory(), 'locks')
  mkdirSync(locks, { recursive: true })
  const path = join(locks, encodeURIComponent(name))
  const wait = ['--wait', String(minutes * 60), '--conflict-exit-code', '75']
  // cat ends when its input does, which is when this process closes it, or has ended.
  const holder = spawn('flock', [...wait, path, 'sh', '-c', 'echo locked; exec cat'], { stdio: 'pipe' })
  let complaint = ''
  holder.stderr.on('data', (text) => {
    complaint += text
  })
  const ended = once(holder, 'exit').catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ENOENT' ? new LabUnavailable('needs flock (util-linux)', { cause: error }) : error
  })
  const isLocked = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)])
  if (isLocked) {
    return async () => {
      holder.stdin.end()
      await ended
    }
  }
  if (holder.exitCode === 75) throw new Error(`another process has been at work on ${name} for ${minutes} minutes`)
  throw new Error(`${path} cannot be locked: ${complaint.trim()}`)
}
