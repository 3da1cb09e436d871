import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { prepared, startVirtualBox } from './src/index.ts'

const INDEX = new URL('./src/index.ts', import.meta.url).href

/** Processes of VirtualBox that run for a VM of this name. */
function processesOf(name: string): string[] {
  return readdirSync('/proc').filter((entry) => {
    if (!/^\d+$/.test(entry)) return false
    try {
      const line = readFileSync(`/proc/${entry}/cmdline`, 'utf8')
      return line.includes('VBoxHeadless') && line.includes(name)
    } catch (error) {
      if (['ENOENT', 'ESRCH', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
      throw error
    }
  })
}

test('a VM comes up without a kernel module, says what it is, and leaves nothing behind', async (context) => {
  const name = 'lab "with" ünusual name'
  const lab = await prepared(context, () => startVirtualBox({ name, vcpus: 2 }))
  try {
    expect(await lab.manage('list', 'runningvms')).toContain(`"${name}"`)
    expect(await lab.manage('showvminfo', name, '--machinereadable')).toContain('VMState="running"')
    expect(processesOf(name)).toHaveLength(1)
  } finally {
    await lab.stop()
  }
  expect(processesOf(name)).toEqual([])
  expect(existsSync(lab.directory)).toBe(false)
  expect(readFileSync('/proc/mounts', 'utf8')).not.toContain('VBoxHeadless')
})

test('a killed test leaves no VM behind', async (context) => {
  await prepared(context, async () => (await startVirtualBox({ started: false })).stop())
  const program = `
    import { startVirtualBox } from '${INDEX}'
    const { directory } = await startVirtualBox({ name: 'killed-lab' })
    console.log(directory)
  `
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [directory] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  expect(processesOf('killed-lab')).toHaveLength(1)
  child.kill('SIGKILL')
  for (let tries = 0; processesOf('killed-lab').length > 0 && tries < 100; tries++) await setTimeout(50)
  expect(processesOf('killed-lab')).toEqual([])
  await (await startVirtualBox({ started: false })).stop()
  expect(existsSync(directory)).toBe(false)
})

test('killing a VM leaves one of the same name in another lab alone', async (context) => {
  const name = 'twin-lab'
  await using one = await prepared(context, () => startVirtualBox({ name }))
  await using other = await startVirtualBox({ name })
  expect(processesOf(name)).toHaveLength(2)
  await one.kill()
  expect(processesOf(name)).toHaveLength(1)
  expect(await other.manage('list', 'runningvms')).toContain(`"${name}"`)
})
