import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { locked } from './lock.ts'

describe.skipIf(process.platform !== 'linux')('on Linux, which has flock(1)', () => {
  let cache: string
  beforeAll(() => {
    cache = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
    vi.stubEnv('MICROVMI_CACHE', cache)
  })
  afterAll(() => {
    vi.unstubAllEnvs()
    rmSync(cache, { recursive: true })
  })

  test('one at a time, and what fails makes way for the next', async () => {
    let inside = 0
    const work = async (index: number) => {
      inside += 1
      expect(inside).toBe(1)
      await setTimeout(20)
      inside -= 1
      if (index === 1) throw new Error('as it happens')
      return index
    }
    const results = await Promise.allSettled([0, 1, 2].map((index) => locked('one', () => work(index))))
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })

  test.each(['', '4711', 'not a number'])('a file %j that is there already holds nothing', async (content) => {
    mkdirSync(join(cache, 'locks'), { recursive: true })
    writeFileSync(join(cache, 'locks', 'left%2Fbehind'), content)
    expect(await locked('left/behind', () => 'done')).toBe('done')
  })

  test('a killed process holds nothing', async () => {
    const program = `
      import { locked } from '${new URL('./lock.ts', import.meta.url).href}'
      await locked('killed', () => { console.log('locked'); return new Promise(() => setInterval(() => {}, 1000)) })
    `
    const holder = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(holder.stdout, 'data')
    await expect(locked('killed', () => 'too early', 0)).rejects.toThrow('another process has been at work on killed')
    holder.kill('SIGKILL')
    expect(await locked('killed', () => 'done')).toBe('done')
  })
})
