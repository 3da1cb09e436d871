import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { once } from './once.ts'

describe.skipIf(process.platform !== 'linux')('on Linux, which has flock(1)', () => {
  let cache: string
  beforeEach(() => {
    cache = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
    vi.stubEnv('MICROVMI_CACHE', cache)
  })
  afterEach(() => {
    vi.unstubAllEnvs()
    rmSync(cache, { recursive: true })
  })

  test('is made once, by whoever comes first', async () => {
    let made = 0
    const make = async (directory: string) => {
      made += 1
      await setTimeout(20)
      writeFileSync(join(directory, 'file'), 'content')
    }
    const [first, second] = await Promise.all([once('a/b', make), once('a/b', make)])
    expect(first).toBe(join(cache, 'a/b'))
    expect(second).toBe(first)
    expect(await once('a/b', make)).toBe(first)
    expect(made).toBe(1)
    expect(readFileSync(join(first, 'file'), 'utf8')).toBe('content')
    expect(readdirSync(join(cache, 'a'))).toEqual(['b'])
  })

  test('a failure leaves nothing, and the next one makes it', async () => {
    const failing = once('thing', (directory) => {
      writeFileSync(join(directory, 'half'), '')
      throw new Error('no space')
    })
    await expect(failing).rejects.toThrow('no space')
    expect(readdirSync(cache)).toEqual(['locks'])
    const directory = await once('thing', () => undefined)
    expect(readdirSync(directory)).toEqual([])
  })

  test('throws away what a killed process left behind, and nothing else', async () => {
    for (const left of ['thing.unfinished', 'thing.unfinished-1', 'thing.lock', 'other.unfinished-1']) {
      mkdirSync(join(cache, left, 'deep'), { recursive: true })
    }
    await once('thing', (directory) => {
      expect(existsSync(join(directory, 'deep'))).toBe(false)
    })
    expect(readdirSync(cache).sort()).toEqual(['locks', 'other.unfinished-1', 'thing', 'thing.lock'])
  })
})
