import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { keeperOf, noteOwner, processIn, RunDirectories } from './run-directory.ts'

describe.skipIf(process.platform !== 'linux')('on Linux, which has /proc', () => {
  let parent: string
  let directories: RunDirectories
  const children: ChildProcess[] = []
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
    directories = new RunDirectories('test-', parent)
  })
  afterEach(async () => {
    for (const child of children.splice(0)) await end(child)
    rmSync(parent, { recursive: true })
  })

  /** A process with these words on its command line. */
  async function started(...words: string[]): Promise<number> {
    const program = 'console.log(); setInterval(() => {}, 1000)'
    const child = spawn(process.execPath, ['-e', program, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    await once(child.stdout, 'data')
    return child.pid ?? -1
  }
  const qemuOf = (directory: string) => started('/root/usr/bin/qemu-system-x86_64', `file:${directory}/console`)
  async function end(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  const age = (directory: string) => utimesSync(join(directory, 'microvmi-lab'), 0, 0)

  test('is nobody else’s to look into, and says who ends its guest', () => {
    const before = process.umask(0)
    try {
      const [one, two] = [directories.create('command', 0), directories.create('process', 0)]
      expect(statSync(one).mode & 0o777).toBe(0o700)
      expect(statSync(join(one, 'microvmi-lab')).mode & 0o777).toBe(0o600)
      expect([keeperOf(one), keeperOf(two)]).toEqual(['command', 'process'])
      noteOwner(one, 1)
      expect(readdirSync(one).sort()).toEqual(['microvmi-lab', 'pid'])
    } finally {
      process.umask(before)
    }
  })

  test.each(['qemu-system-x86_64', 'bochs'])(
    'one whose %s lives is kept, and one whose emulator has ended is removed by the next',
    async (emulator) => {
      const directory = directories.create('process', 0)
      age(directory)
      const pid = await started(`/root/usr/bin/${emulator}`, `${directory}/console`)
      noteOwner(directory, pid)
      expect(processIn(directory)).toBe(pid)
      expect(directories.running()).toEqual([directory])
      directories.create('process', 0)
      expect(existsSync(directory)).toBe(true)
      for (const child of children.splice(0)) await end(child)
      expect(processIn(directory)).toBeUndefined()
      directories.create('process', 0)
      expect(existsSync(directory)).toBe(false)
    },
  )

  test('one that is being started is kept, for a while', () => {
    const directory = directories.create('process', 0)
    directories.create('process', 0)
    expect(directories.running()).toContain(directory)
    age(directory)
    directories.create('process', 0)
    expect(existsSync(directory)).toBe(false)
  })

  test('a number that is another process’s by now is nobody', async () => {
    const directory = directories.create('command', 0)
    const other = directories.create('command', 0)
    for (const pid of [await started(`file:${directory}/console`), await qemuOf(other), process.pid, 1, 2 ** 22 + 1]) {
      noteOwner(directory, pid)
      expect(processIn(directory)).toBeUndefined()
    }
    for (const text of ['', '0', '-1', '1 2', 'self', '../../etc']) {
      writeFileSync(join(directory, 'pid'), text)
      expect(processIn(directory)).toBeUndefined()
    }
    expect(directories.running()).toEqual([other])
  })

  test('what is not ours is neither listed nor removed', () => {
    const foreign = join(parent, 'test-foreign')
    mkdirSync(foreign, { mode: 0o700 })
    const open = directories.create('process', 0)
    chmodSync(open, 0o755)
    const elsewhere = join(parent, 'elsewhere')
    mkdirSync(elsewhere, { mode: 0o700 })
    writeFileSync(join(elsewhere, 'microvmi-lab'), 'command', { mode: 0o600 })
    symlinkSync(elsewhere, join(parent, 'test-link'))
    for (const directory of [open, elsewhere]) age(directory)
    directories.create('process', 0)
    expect(readdirSync(parent)).toEqual(expect.arrayContaining(['test-foreign', 'test-link', 'elsewhere']))
    expect(existsSync(open)).toBe(true)
    expect(directories.running()).toHaveLength(1)
  })

  test.skipIf(process.getuid?.() !== 0)('another user’s are neither listed nor removed (needs root)', async () => {
    const directory = directories.create('command', 0)
    noteOwner(directory, await qemuOf(directory))
    expect(directories.running()).toEqual([directory])
    chownSync(directory, 65_534, 65_534)
    expect(directories.running()).toEqual([])
    for (const child of children.splice(0)) await end(child)
    directories.create('process', 0)
    expect(existsSync(directory)).toBe(true)
  })

  test('too little space is a reason to do without the lab', () => {
    expect(() => directories.create('process', 2 ** 60)).toThrow(
      expect.objectContaining({
        name: 'LabUnavailable',
        message: expect.stringContaining(`needs 1099511627776 MiB on ${parent}`),
      }),
    )
    expect(readdirSync(parent)).toEqual([])
  })
})
