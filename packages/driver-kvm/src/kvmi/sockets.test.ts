import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { list, open } from '@microvmi/core'
import { afterAll, afterEach, expect, test } from 'vitest'
import { closeDescriptor } from '../native.ts'
import { kvmi } from './driver.ts'
import { bindUnix, bindVsock } from './native.ts'
import { startPeers } from './peers.testing.ts'

const peers = await startPeers()
afterAll(() => peers.end())
const running: number[] = []
afterEach(async () => {
  delete process.env.MICROVMI_KVMI_SOCKET
  for (const peer of running.splice(0)) await peers.stop(peer)
})

let sockets = 0
const path = () => peers.path(`s${++sockets}`)

/** A VM that dials in at a socket. */
async function start(name: string, socket: string, more: { uuid?: string; cookieHash?: string } = {}): Promise<void> {
  const guest = { name, clock: 'real', vcpus: 1, memory: 4 * 2 ** 20 } as const
  running.push(await peers.start({ generation: 'C', socket, guest, uuid: '11'.repeat(16), ...more }))
}

test('the socket is for its owner alone, unless told otherwise, and goes when nobody needs it', async () => {
  const socket = path()
  await start('one', socket)
  const vm = await open(kvmi, { vm: 'one', socket })
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  await vm.close()
  expect(existsSync(socket)).toBe(false)
  const shared = await open(kvmi, { vm: 'one', socket, mode: '0660', owner: `${process.getuid?.()}` })
  expect(statSync(socket).mode & 0o777).toBe(0o660)
  await shared.close()
})

test.each([
  { mode: '8' },
  { mode: 'rw' },
  { owner: 'nobody-has-this-name' },
  { owner: 'a:b:c' },
  { wait: -1 },
  { socket: 'relative' },
  { socket: `/${'x'.repeat(200)}` },
  { secret: 'a', secretFile: '/b' },
  { secretFile: '/no/such/file' },
  { vsock: 1 },
  { socket: '/no/such/directory/socket' },
])('options that make no sense: %j', async (options) => {
  const opening = open(kvmi, { vm: 'one', socket: path(), ...options })
  await expect(opening).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
})

test('a dead socket is replaced; one that is alive, or no socket, is not touched', async () => {
  const dead = path()
  const bound = bindUnix(dead, () => {})
  if ('fd' in bound) closeDescriptor(bound.fd)
  expect(existsSync(dead)).toBe(true)
  await start('one', dead)
  await (await open(kvmi, { vm: 'one', socket: dead })).close()

  const alive = path()
  const server = createServer().listen(alive)
  await once(server, 'listening')
  await expect(open(kvmi, { vm: 'one', socket: alive })).rejects.toMatchObject({ code: 'BUSY' })
  expect(server.listening && existsSync(alive)).toBe(true)
  server.close()

  const file = path()
  writeFileSync(file, 'precious')
  await expect(open(kvmi, { vm: 'one', socket: file })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  expect(statSync(file).size).toBe(8)
})

test('several VMs at one socket, told apart by name and UUID, open at the same time', async () => {
  const socket = path()
  await start('one', socket, { uuid: '1a'.repeat(16) })
  await start('two', socket, { uuid: '2b'.repeat(16) })
  await start('twin', socket, { uuid: '3c'.repeat(16) })
  await start('twin', socket, { uuid: '4d'.repeat(16) })
  const one = await open(kvmi, { vm: 'one', socket })
  const two = await open(kvmi, { vm: '2b2b2b2b-2b2b-2b2b-2b2b-2b2b2b2b2b2b', socket })
  expect([one.name, two.name]).toEqual(['one', 'two'])
  await expect(open(kvmi, { vm: 'one', socket })).rejects.toMatchObject({ code: 'BUSY' })
  // Both have dialled in by now, as the others have.
  await new Promise((resolve) => setTimeout(resolve, 200))
  await expect(open(kvmi, { vm: 'twin', socket })).rejects.toMatchObject({ code: 'VM_AMBIGUOUS' })
  const twin = await open(kvmi, { vm: '4d4d4d4d-4d4d-4d4d-4d4d-4d4d4d4d4d4d', socket })
  expect(twin.name).toBe('twin')
  for (const vm of [one, two, twin]) await vm.close()
})

test('a VM that was closed dials in again', async () => {
  const socket = path()
  await start('one', socket)
  for (let times = 0; times < 5; times++) {
    const vm = await open(kvmi, { vm: 'one', socket })
    expect(vm.memory.tryRead(0, new Uint8Array(8))).toBe(true)
    await vm.close()
  }
})

test('the secret is proved, as text and as a file', async () => {
  const socket = path()
  await start('one', socket, { cookieHash: createHash('sha1').update('open sesame').digest('hex') })
  const file = path()
  writeFileSync(file, 'open sesame')
  await (await open(kvmi, { vm: 'one', socket, secret: 'open sesame' })).close()
  await (await open(kvmi, { vm: 'one', socket, secretFile: file })).close()
  const wrong = open(kvmi, { vm: 'one', socket, secret: 'open barley', wait: 300 })
  await expect(wrong).rejects.toMatchObject({ code: 'VM_NOT_FOUND', message: expect.stringContaining('secret') })
  const none = open(kvmi, { vm: 'one', socket, wait: 300 })
  await expect(none).rejects.toMatchObject({ code: 'VM_NOT_FOUND', message: expect.stringContaining('secret') })
})

test('list waits for QEMUs until its deadline, where it is told to listen', async () => {
  const socket = path()
  const before = performance.now()
  expect((await list({ driver: kvmi, timeout: 2000 })).vms).toEqual([])
  expect(performance.now() - before).toBeLessThan(1000)
  expect(existsSync(socket)).toBe(false)
  process.env.MICROVMI_KVMI_SOCKET = socket
  const listing = list({ driver: kvmi, timeout: 1500 })
  await start('late', socket)
  const { vms, failures } = await listing
  expect(failures).toEqual([])
  expect(vms).toMatchObject([{ name: 'late', id: '11111111-1111-1111-1111-111111111111', state: 'running' }])
  const [entry] = vms
  if (!entry) throw new Error('it is listed')
  // Its connection was kept: nobody has to wait for QEMU to dial in again.
  const vm = await open(entry)
  expect(vm.name).toBe('late')
  await vm.close()
})

test('without a socket nobody listens', async () => {
  await expect(open(kvmi, { vm: 'one' })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  await expect(open({ vm: 'one-that-nobody-has', timeout: 500 })).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
})

test('a VM that nobody has is waited for, and can be given up', async () => {
  const socket = path()
  const start = performance.now()
  await expect(open(kvmi, { vm: 'none', socket, wait: 200 })).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
  expect(performance.now() - start).toBeGreaterThan(150)
  const controller = new AbortController()
  const opening = open(kvmi, { vm: 'none', socket, signal: controller.signal })
  setTimeout(() => controller.abort(), 20)
  await expect(opening).rejects.toMatchObject({ code: 'ABORTED' })
  expect(existsSync(socket)).toBe(false)
})

test('vsock: a port is bound where the kernel has it', ({ skip }) => {
  const bound = bindVsock(40_000)
  if ('errno' in bound) skip(`this kernel gives no vsock (errno ${bound.errno})`)
  else closeDescriptor(bound.fd)
})

// Last: what a listing has found is kept for a while, and others would find it.
test('VMs that were given no UUID are told apart by name', async () => {
  const socket = path()
  await start('first', socket, { uuid: '00'.repeat(16) })
  await start('second', socket, { uuid: '00'.repeat(16) })
  process.env.MICROVMI_KVMI_SOCKET = socket
  const { vms } = await list({ driver: kvmi, timeout: 600 })
  expect(vms.map(({ vm, id }) => [vm, id]).sort()).toEqual([
    ['first', 'first'],
    ['second', 'second'],
  ])
  const vm = await open(kvmi, { vm: 'second', socket })
  expect([vm.name, vm.id]).toEqual(['second', 'second'])
  await vm.close()
})
