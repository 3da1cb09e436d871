import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { knownPage, monitor, prepared, startQemu } from './src/index.ts'

const running = (pid: number) => existsSync(`/proc/${pid}`)

test('a guest comes up, holds what it says, switches processes, and leaves nothing behind', async (context) => {
  const lab = await prepared(context, () => startQemu({ name: 'lab, with ünusual name', vcpus: 2 }))
  try {
    const facts = await lab.ready()
    expect(facts.known.physical).toHaveLength(16)
    expect(facts.symbols.init_task).toBeGreaterThan(0xffff_8000_0000_0000n)
    expect(facts.offsets['task_struct.comm']).toBeGreaterThan(0)
    const ram = openSync(lab.ramFile ?? '', 'r')
    for (const [index, physical] of facts.known.physical.entries()) {
      const page = new Uint8Array(4096)
      readSync(ram, page, 0, page.length, physical)
      expect(page).toEqual(knownPage(index))
    }
    closeSync(ram)
    const before = lab.tick()?.switches ?? 0
    await setTimeout(2500)
    expect(lab.tick()?.switches).toBeGreaterThan(before)
    expect(lab.tick()?.traps).toBeGreaterThan(0)
    expect(await monitor(lab.ownQmp, 'query-name')).toEqual({ name: 'lab, with ünusual name' })
  } finally {
    await lab.stop()
  }
  expect(running(lab.pid)).toBe(false)
  expect(existsSync(lab.directory)).toBe(false)
})

test('a killed test leaves no guest behind, and the next start removes its directory', async (context) => {
  await prepared(context, async () => (await startQemu({ paused: true })).stop())
  const program = `
    import { startQemu } from '${new URL('./src/index.ts', import.meta.url).href}'
    const { pid, directory } = await startQemu({ paused: true })
    console.log(JSON.stringify({ pid, directory }))
  `
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(createInterface({ input: child.stdout }), 'line')
  const { pid, directory } = JSON.parse(line) as { pid: number; directory: string }
  expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain('qemu-system')
  child.kill('SIGKILL')
  for (let tries = 0; running(pid) && tries < 100; tries++) await setTimeout(50)
  expect(running(pid)).toBe(false)
  expect(existsSync(directory)).toBe(true)
  await (await startQemu({ paused: true })).stop()
  expect(existsSync(directory)).toBe(false)
})
