import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { monitor, prepared, type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { afterAll, beforeEach, expect, test } from 'vitest'

let started: QemuLab | undefined
let lab: QemuLab
beforeEach(async (context) => {
  started ??= await prepared(context, () => startQemu())
  lab = started
  await lab.ready()
})
afterAll(() => started?.stop())

/** The command line as a process of its own. */
function microvmi(...args: string[]) {
  const cwd = fileURLToPath(new URL('..', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts', ...args], { cwd })
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  return { child, ended: once(child, 'close').then(([code]) => ({ code: code as number, stderr })) }
}

const isRunning = async () => ((await monitor(lab.ownQmp, 'query-status')) as { running: boolean }).running

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return
    await setTimeout(10)
  }
  throw new Error('it did not come to that within five seconds')
}

test.for(['SIGINT', 'SIGTERM'] as const)('a dump that %s ends leaves the guest running and no file', async (signal) => {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-'))
  try {
    const { child, ended } = microvmi('dump', `kvm:${lab.qmp}`, join(directory, 'guest.raw'), '--sha256', '--no-sparse')
    await until(async () => !(await isRunning()))
    child.kill(signal)
    expect((await ended).code).toBe(signal === 'SIGINT' ? 130 : 143)
    expect(await isRunning()).toBe(true)
    expect(readdirSync(directory)).toEqual([])
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test('a reader that goes away ends a dump to stdout; the guest runs again', async () => {
  const { child, ended } = microvmi('dump', `kvm:${lab.qmp}`, '-')
  await once(child.stdout, 'data')
  expect(await isRunning()).toBe(false)
  child.stdout.destroy()
  expect((await ended).code).toBe(0)
  expect(await isRunning()).toBe(true)
})

test('pause and resume outlast the command', async () => {
  expect((await microvmi('pause', `kvm:${lab.qmp}`).ended).stderr).toContain('is paused')
  expect(await isRunning()).toBe(false)
  expect((await microvmi('resume', `kvm:${lab.qmp}`).ended).stderr).toContain('is running')
  expect(await isRunning()).toBe(true)
})
