import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { PassThrough } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from './run.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'microvmi-cli-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const here = dirname(fileURLToPath(import.meta.url))

/** Runs a command line; signals are sent with `signal`. */
function start(args: readonly string[], options: { cwd?: string; stdin?: string | Buffer; unread?: boolean } = {}) {
  const stdin = new PassThrough()
  stdin.end(options.stdin ?? '')
  const streams = { stdin, stdout: new PassThrough(), stderr: new PassThrough() }
  const handlers = new Map<string, () => void>()
  const collect = (stream: PassThrough) => {
    const chunks: Buffer[] = []
    if (!options.unread) stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    return () => Buffer.concat(chunks)
  }
  const read = { stdout: collect(streams.stdout), stderr: collect(streams.stderr) }
  const done = run(args, {
    ...streams,
    cwd: () => options.cwd ?? here,
    on: (event, listener) => handlers.set(event, listener),
    off: (event) => handlers.delete(event),
  }).then((code) => {
    const stdout = read.stdout()
    return { code, stdout: stdout.toString(), raw: stdout, stderr: read.stderr().toString(), handlers }
  })
  return { done, signal: (name: string) => handlers.get(name)?.() }
}

const microvmi = (args: readonly string[], options: { cwd?: string; stdin?: string | Buffer } = {}) =>
  start(args, options).done

test('--help tells a newcomer everything, --version the version', async () => {
  const { code, stdout } = await microvmi(['--help'])
  expect(code).toBe(0)
  for (const word of [
    'list',
    'info',
    'dump',
    'regs',
    'read',
    'write',
    'pause',
    'resume',
    'watch',
    'doctor',
    'Examples:',
    'Exit codes:',
  ]) {
    expect(stdout).toContain(word)
  }
  expect((await microvmi(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
})

test.each([
  [['frobnicate'], /unknown command/],
  [['lst'], /Did you mean list/],
  [['read', 'mock:demo', '0x1000'], /missing required argument/],
  [['read', 'mock:demo', 'ten', '1'], /4096, 0x1000 or 64k/],
  [['read', 'mock:demo', '0', '1', '--colour'], /unknown option/],
  [['write', 'mock:demo', '0', '--hex', 'xyz'], /hexadecimal digits/],
  [['watch', 'mock:demo', 'cr9'], /cr0, cr3/],
  [['info', 'mock:demo?speed=9999x'], /has no option|is a number/],
] as const)('%j is wrong usage', async (args, message) => {
  const { code, stderr, stdout } = await microvmi(args)
  expect(stderr).toMatch(message)
  expect(code).toBe(2)
  expect(stdout).toBe('')
})

test.each([
  [['info', 'nodriver:x'], 3, 'UNKNOWN_DRIVER'],
  [['info', 'no such vm'], 3, 'VM_NOT_FOUND'],
  [['info', 'mock:no such guest'], 3, 'VM_NOT_FOUND'],
] as const)('%j says what is wrong', async (args, exitCode, code) => {
  const result = await microvmi(args)
  expect(result.stderr).toContain(`[${code}]`)
  expect(result.code).toBe(exitCode)
})

test('list, info and doctor, for people and as JSON', async () => {
  expect((await microvmi(['list'])).stdout).toMatch(/^TARGET +NAME +ID +STATE\n/)
  const { vms } = JSON.parse((await microvmi(['list', '--json'])).stdout) as { vms: { target: string }[] }
  expect(vms.map(({ target }) => target)).toContain('mock:demo')
  expect((await microvmi(['info', 'mock:demo'])).stdout).toMatch(/capabilities .*\n/)
  const info = JSON.parse((await microvmi(['info', 'demo', '--json'])).stdout) as { driver: string; vcpuCount: number }
  expect(info).toMatchObject({ driver: 'mock', name: 'demo' })
  const { drivers } = JSON.parse((await microvmi(['doctor', '--json'])).stdout) as { drivers: { driver: string }[] }
  expect(drivers.find(({ driver }) => driver === 'mock')).toMatchObject({ usable: true })
})

test('a driver package that cannot be imported is told by doctor, list, and where it may be the reason', async () => {
  const broken = join(directory, 'node_modules', 'microvmi-driver-broken')
  mkdirSync(broken, { recursive: true })
  writeFileSync(join(broken, 'package.json'), '{ "type": "module", "exports": { ".": { "default": "./index.js" } } }')
  writeFileSync(join(broken, 'index.js'), "throw new Error('no libbroken.so')")
  const doctor = await microvmi(['doctor'], { cwd: directory })
  expect(doctor.stdout).toMatch(/microvmi-driver-broken\s.*no libbroken\.so/s)
  expect(doctor.code).toBe(4)
  expect((await microvmi(['list'], { cwd: directory })).stderr).toContain('no libbroken.so')
  expect((await microvmi(['info', 'broken:x'], { cwd: directory })).stderr).toContain('no libbroken.so')
})

test('regs prints each vCPU, or one', async () => {
  const { stdout } = await microvmi(['regs', 'mock:demo'])
  expect(stdout).toMatch(/^vcpu 0\n {2}rax +[0-9a-f]{16} {2}rbx/)
  const [one] = JSON.parse((await microvmi(['regs', 'mock:demo', '--vcpu', '0', '--json'])).stdout) as {
    registers: { cr3: string }
  }[]
  expect(one?.registers.cr3).toMatch(/^0x[0-9a-f]+$/)
  expect((await microvmi(['regs', 'mock:demo', '--vcpu', '99'])).code).toBe(2)
})

test('read: hexdump, raw and JSON are of the same bytes; what is no memory is an error', async () => {
  const raw = await microvmi(['read', 'mock:demo', '0x1000', '40', '--raw'])
  expect(raw.raw).toHaveLength(40)
  const json = JSON.parse((await microvmi(['read', 'mock:demo', '0x1000', '40', '--json'])).stdout) as { bytes: string }
  expect(json).toMatchObject({ address: '0x1000', length: 40 })
  const text = await microvmi(['read', 'mock:demo', '0x1000', '40'])
  expect(text.stdout).toMatch(/^00001000 {2}[0-9a-f]{2} /)
  expect(text.stdout).toMatch(/\n00001028\n$/)
  const hole = await microvmi(['read', 'mock:demo', '0xfffffffff000', '8'])
  expect(hole.stderr).toContain('[BAD_ADDRESS]')
  expect(hole.code).toBe(1)
})

test('write takes bytes from --hex, a file or stdin, and refuses nothing at all', async () => {
  const file = join(directory, 'bytes')
  writeFileSync(file, Buffer.of(4, 5))
  for (const [args, stdin] of [
    [['--hex', '01 02'], ''],
    [['--file', file], ''],
    [[], Buffer.of(7, 8, 9)],
  ] as const) {
    const { code, stderr } = await microvmi(['write', 'mock:demo', '0x3000', ...args], { stdin })
    expect(stderr).toMatch(/bytes were written to 0x3000/)
    expect(code).toBe(0)
  }
  expect((await microvmi(['write', 'mock:demo', '0x3000'])).code).toBe(2)
  expect((await microvmi(['write', 'mock:demo', '0x3000', '--hex', '00', '--file', file])).code).toBe(2)
  expect((await microvmi(['write', 'mock:demo', '0x3000', '--file', join(directory, 'none')])).code).toBe(2)
})

test('dump: a private file, its hash, refusal to overwrite; - is stdout', async () => {
  const file = join(directory, 'demo.raw')
  const first = await microvmi(['dump', 'mock:demo', file, '--sha256'])
  expect(first.code).toBe(0)
  expect(first.stdout).toMatch(/^[0-9a-f]{64} {2}/)
  expect(first.stderr).toMatch(/on disk\) in [\d.]+ s/)
  expect(statSync(file).mode & 0o077).toBe(0)
  const second = await microvmi(['dump', 'mock:demo', file])
  expect(second.stderr).toContain('[EXISTS]')
  expect(second.code).toBe(1)
  const { stdout: told } = await microvmi(['dump', 'mock:demo', file, '--overwrite', '--json'])
  expect(JSON.parse(told)).toMatchObject({ file, length: statSync(file).size })
  const { raw } = await microvmi(['dump', 'mock:demo', '-'])
  expect(raw).toHaveLength(statSync(file).size)
})

test('pause and resume say what they did', async () => {
  expect((await microvmi(['pause', 'mock:demo'])).stderr).toMatch(/demo is paused|was paused already/)
  expect((await microvmi(['resume', 'mock:demo', '--json'])).stdout).toContain('"now":"running"')
})

test('watch prints events until its count, and a signal ends it with 128 and its number', async () => {
  const { stdout, code } = await microvmi(['watch', 'mock:demo', 'cr3', '--count', '3', '--json'])
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { kind: string; new: string })
  expect(events).toHaveLength(3)
  expect(events[0]).toMatchObject({ kind: 'cr', register: 'cr3', new: expect.stringMatching(/^0x/) })
  expect(code).toBe(0)
  const endless = start(['watch', 'mock:demo', 'cr3'])
  await new Promise((resolve) => setTimeout(resolve, 300))
  endless.signal('SIGINT')
  const ended = await endless.done
  expect(ended.code).toBe(130)
  expect(ended.handlers.size).toBe(0)
  const unread = start(['watch', 'mock:demo', 'cr3'], { unread: true })
  await new Promise((resolve) => setTimeout(resolve, 300))
  unread.signal('SIGTERM')
  expect((await unread.done).code).toBe(143)
})
