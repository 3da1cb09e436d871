import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { knownPage, monitor, prepared, processIn, startQemu } from './src/index.ts'
import { runDirectories } from './src/qemu.ts'

const main = fileURLToPath(new URL('./src/main.ts', import.meta.url))

function running(pid: number): boolean {
  try {
    // What has ended, and waits for its parent to look, has no command line any more.
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1') !== ''
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return false
    throw error
  }
}

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
    // The guest's own words for its counters' addresses: landmarks is the first of them.
    const landmarks = new BigUint64Array(1)
    readSync(ram, landmarks, 0, 8, facts.marks.counters)
    expect(landmarks[0]).toBeGreaterThan(0n)
    expect(facts.marks.shared).toBeGreaterThan(0n)
    expect(facts.marks.shared & 0xfffn).toBe(BigInt(facts.marks.counters) & 0xfffn)
    closeSync(ram)
    for (const name of readdirSync(lab.directory))
      expect([name, statSync(join(lab.directory, name)).mode & 0o077]).toEqual([name, 0])
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

test('a reset guest tells its facts anew', async (context) => {
  await using lab = await prepared(context, () => startQemu({ memoryMiB: 256 }))
  await lab.ready()
  await expect.poll(() => lab.tick()?.second ?? 0, { timeout: 20_000 }).toBeGreaterThan(1)
  await monitor(lab.ownQmp, 'system_reset')
  await expect.poll(() => lab.console().split('@boot').length, { timeout: 60_000 }).toBe(3)
  await lab.ready()
  expect(lab.tick()?.second ?? 1).toBeLessThan(3)
})

test('a guest that cannot do its work says so, and its machine is switched off', async (context) => {
  // The kernel hides the addresses of its symbols (Documentation/admin-guide/sysctl/kernel.rst).
  const commandLine = 'console=ttyS0 quiet nokaslr mitigations=off panic=-1 sysctl.kernel.kptr_restrict=2'
  await using lab = await prepared(context, () => startQemu({ memoryMiB: 256, commandLine }))
  await expect(lab.ready()).rejects.toThrow('the guest failed: kallsyms')
  await expect.poll(() => running(lab.pid), { timeout: 20_000 }).toBe(false)
})

test('a QEMU that does not start, or is killed, is told at once', async (context) => {
  await prepared(context, async () => (await startQemu({ paused: true })).stop())
  await expect(startQemu({ cpu: 'nonsense' })).rejects.toThrow(/^QEMU ended with exit code 1: .*nonsense/)
  await using lab = await startQemu({ paused: true, gdb: true })
  expect(existsSync(lab.gdb ?? '')).toBe(true)
  const ready = expect(lab.ready()).rejects.toThrow('QEMU was killed by SIGSEGV')
  process.kill(lab.pid, 'SIGSEGV')
  await ready
})

test('up, status and down: only what up has started is ended', async (context) => {
  await using other = await prepared(context, () => startQemu({ paused: true }))
  const command = async (...words: string[]) =>
    (await promisify(execFile)(process.execPath, ['--import', 'tsx', main, ...words])).stdout
  const options = ['--paused', '--gdb', '--machine', 'pc', '--cpu', 'max', '--memory', '128']
  const { name, ...mine } = JSON.parse(await command('up', ...options)) as Record<
    'name' | 'directory' | 'gdb',
    string
  > & {
    pid: number
  }
  try {
    expect(name).toBe('microvmi-lab')
    const words = readFileSync(`/proc/${mine.pid}/cmdline`, 'latin1').split('\0')
    expect(words).toEqual(expect.arrayContaining(['-S', 'max', 'pc,memory-backend=ram']))
    const all = JSON.parse(await command('status')) as { pid: number }[]
    expect(all.find(({ pid }) => pid === mine.pid)).toMatchObject({ ...mine, endsBy: 'down' })
    expect(all.find(({ pid }) => pid === other.pid)).toMatchObject({ qmp: other.qmp, endsBy: 'itself' })
  } finally {
    await command('down')
  }
  expect(existsSync(mine.directory)).toBe(false)
  await expect.poll(() => running(mine.pid)).toBe(false)
  expect(await monitor(other.ownQmp, 'query-status')).toMatchObject({ running: false })
})

test('up that is interrupted, or whose guest fails, leaves no guest behind', async (context) => {
  await prepared(context, async () => (await startQemu({ paused: true })).stop())
  const before = runDirectories.running()
  const up = (...words: string[]) => {
    const child = spawn(process.execPath, ['--import', 'tsx', main, 'up', ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let complaint = ''
    child.stderr.on('data', (text) => {
      complaint += text
    })
    const mine = () => runDirectories.running().find((directory) => !before.includes(directory) && processIn(directory))
    return { child, mine, complaint: () => complaint, ended: once(child, 'exit') }
  }
  const interrupted = up('--name', 'interrupted')
  await expect.poll(interrupted.mine, { timeout: 20_000 }).toBeTypeOf('string')
  interrupted.child.kill('SIGTERM')
  expect(await interrupted.ended).toEqual([1, null])
  expect(interrupted.complaint()).toBe('SIGTERM: no guest was started\n')
  expect(interrupted.mine()).toBeUndefined()
  const killed = up('--name', 'killed')
  await expect.poll(killed.mine, { timeout: 20_000 }).toBeTypeOf('string')
  process.kill(processIn(killed.mine() ?? '') ?? Number.NaN, 'SIGKILL')
  expect(await killed.ended).toEqual([1, null])
  expect(killed.complaint()).toContain('QEMU was killed by SIGKILL')
  expect(killed.mine()).toBeUndefined()
})
