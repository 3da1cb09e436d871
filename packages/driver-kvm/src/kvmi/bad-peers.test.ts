import { MicrovmiError, open, supports } from '@microvmi/core'
import { afterAll, expect, test } from 'vitest'
import { BAD, HURRY, openBad } from './bad-peer.testing.ts'
import { kvmi } from './driver.ts'
import { startPeers } from './peers.testing.ts'

const peers = await startPeers()
afterAll(() => peers.end())

let sockets = 0
const socket = () => peers.path(`bad${++sockets}`)

/** What a call throws, and how long it took. */
function thrownBy(call: () => unknown): { readonly code: string; readonly milliseconds: number } {
  const start = performance.now()
  try {
    call()
  } catch (error) {
    if (error instanceof MicrovmiError) return { code: error.code, milliseconds: performance.now() - start }
    throw error
  }
  throw new Error('it does not throw')
}

const page = new Uint8Array(4096)

/** What a peer may answer to a read (message 12) that no kernel does: then the connection is ended. */
const FAULTS = {
  'a size over the limit': 'socket.write(Buffer.from([12, 0, 255, 255, 0, 0, 0, 0]))',
  'a size of 0': 'message(12, seq, Buffer.alloc(0))',
  'an answer too short for its error': 'message(12, seq, Buffer.alloc(7))',
  'fewer bytes than were asked for': 'reply(12, seq, 0, Buffer.alloc(5))',
  'more bytes than were asked for': 'reply(12, seq, 0, Buffer.alloc(5000))',
  'an unknown message': 'message(999, seq, Buffer.alloc(16))',
  'a number that was never sent': 'reply(12, seq + 1000, 0, Buffer.alloc(4096))',
  "another command's message": 'reply(14, seq, 0, Buffer.alloc(4096))',
  'the same answer twice': 'reply(12, seq, 0, Buffer.alloc(4096)); reply(12, seq, 0, Buffer.alloc(4096))',
  'an event of a vCPU that is not there': 'event(7, 3, 5)',
  'an event that does not exist': 'event(99, 0, 5)',
  'an event that is cut short': 'message(1, 5, Buffer.alloc(100))',
  'a second event of a vCPU that waits': 'event(7, 0, 5); event(7, 0, 6)',
  'a pause that nobody asked for': 'event(1, 0, 5)',
} as const

test.each(Object.entries(FAULTS))('%s', async (name, fault) => {
  const vm = await openBad(peers, socket(), `if (id === 12) { ${fault}; return true }`)
  try {
    // The second answer, or what comes behind the first, may be met by the next call only.
    const first = thrownBy(() => {
      for (let times = 0; times < 3; times++) vm.memory.read(0, page)
    })
    expect(first.code, name).toBe('PROTOCOL')
    expect(first.milliseconds).toBeLessThan(2 * HURRY)
    expect(thrownBy(() => vm.memory.read(0, page)).code).toBe('VM_GONE')
    expect(thrownBy(() => vm.pause()).code).toBe('VM_GONE')
  } finally {
    await vm.close()
  }
})

test('registers in a short answer', async () => {
  const vm = await openBad(peers, socket(), 'if (id === 7) { reply(7, seq, 0, Buffer.alloc(200)); return true }')
  expect(thrownBy(() => vm.readRegisters(0)).code).toBe('PROTOCOL')
  await vm.close()
})

test('the peer dies within a message', async () => {
  const dying = 'if (id === 12) { socket.end(Buffer.from([12, 0, 8, 16, 9])); return true }'
  const vm = await openBad(peers, socket(), dying)
  expect(thrownBy(() => vm.memory.read(0, page)).code).toBe('VM_GONE')
  expect(thrownBy(() => vm.readRegisters(0)).code).toBe('VM_GONE')
  await vm.close()
})

test('a peer that answers nothing: each call has its deadline, and late answers are dropped', async () => {
  const silent = `
    if (id !== 12) return false
    state.late = state.late ?? []
    if (state.late.length < 2) { state.late.push(seq); return true }
    for (const one of state.late.splice(0)) reply(12, one, 0, Buffer.alloc(4096, 1))
    state.late.length = 3
    reply(12, seq, 0, Buffer.alloc(4096, 7))
    return true`
  const vm = await openBad(peers, socket(), silent)
  for (let times = 0; times < 2; times++) {
    const { code, milliseconds } = thrownBy(() => vm.memory.read(0, page))
    expect(code).toBe('TIMEOUT')
    expect(milliseconds).toBeGreaterThan(HURRY / 2)
    expect(milliseconds).toBeLessThan(3 * HURRY)
  }
  vm.memory.read(0, page)
  expect(page.every((byte) => byte === 7)).toBe(true)
  await vm.close()
})

test('answers out of order', async () => {
  const backwards = `
    if (id !== 12 || body.readUInt16LE(8) !== 4096) return false
    state.held = state.held ?? []
    state.held.push([seq, Number(body.readBigUInt64LE(0)) / 4096])
    if (state.held.length < 10) return true
    for (const [one, frame] of state.held.splice(0).reverse()) reply(12, one, 0, Buffer.alloc(4096, frame))
    return true`
  const vm = await openBad(peers, socket(), backwards)
  const pages = new Uint8Array(10 * 4096)
  vm.memory.read(0, pages)
  expect(Array.from({ length: 10 }, (_, frame) => pages[frame * 4096 + 9])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  await vm.close()
})

test('an event that arrives while a command waits is delivered behind it', async () => {
  // The answer to the event (message 1) is noted, and told as the contents of memory.
  const interrupting = `
    if (id === 1) { state.action = body[8] + 100; return true }
    if (id !== 12) return false
    if (!state.action && !state.told) { state.told = true; event(3, 0, 5) }
    reply(12, seq, 0, Buffer.alloc(body.readUInt16LE(8), state.action ?? 9))
    return true`
  const vm = await openBad(peers, socket(), interrupting)
  if (!supports(vm, 'events.hypercall')) throw new Error('the peer allows everything')
  let during = 0
  let delivered = 0
  const intercept = vm.intercept({ kind: 'hypercall' }, () => {
    delivered += 1
  })
  vm.memory.read(0, page)
  during = delivered
  expect(page[0]).toBe(9)
  expect(during).toBe(0)
  while (delivered === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  vm.memory.read(0, page)
  // CONTINUE
  expect(page[0]).toBe(100)
  intercept.close()
  await vm.close()
})

test('a vCPU that does not stop: TIMEOUT, and it goes on when it does stop later', async () => {
  const late = `
    if (id === 1) { state.answered = body[9]; return true }
    if (id === 16) { reply(16, seq, 0); setTimeout(() => event(1, 0, 6), ${3 * HURRY}); return true }
    if (id !== 12) return false
    reply(12, seq, 0, Buffer.alloc(body.readUInt16LE(8), state.answered ?? 50))
    return true`
  const vm = await openBad(peers, socket(), late)
  expect(thrownBy(() => vm.pause()).code).toBe('TIMEOUT')
  expect(vm.runState()).toBe('running')
  await new Promise((resolve) => setTimeout(resolve, 4 * HURRY))
  vm.memory.read(0, page)
  // The pause event was answered.
  expect(page[0]).toBe(1)
  await vm.close()
})

test('a command that QEMU does not allow', async () => {
  const path = socket()
  const forbidding = 'if (id === 4 && body.readUInt16LE(0) === 12) { reply(4, seq, -1); return true }'
  await expect(openBad(peers, path, forbidding)).rejects.toMatchObject({ code: 'DENIED' })
})

test.each([
  ['the unfinished generation of v8 and v9', UNFINISHED(), 'UNSUPPORTED'],
  [
    'another version',
    "if (id === 2) { reply(2, seq, 0, Buffer.from('0900000000000000', 'hex')); return true }",
    'UNSUPPORTED',
  ],
] as const)('%s', async (_, handle, code) => {
  await expect(openBad(peers, socket(), handle)).rejects.toMatchObject({ code })
})

/** It answers its version in 8 bytes, and knows no message 27. */
function UNFINISHED(): string {
  return `
    if (id === 2) { reply(2, seq, 0, Buffer.from('0100000000000000', 'hex')); return true }
    if (id === 3) { reply(3, seq, -2); return true }`
}

/** What a caller may send first that is no QEMU's. */
const GREETINGS = {
  'a handshake of no size': 'socket.write(Buffer.alloc(96))',
  'a handshake of 4 GiB': "socket.write(Buffer.from('ffffffff', 'hex'))",
  text: "socket.write('GET / HTTP/1.1\\r\\n\\r\\n')",
  'half a handshake': "socket.end(hello('half', '00'.repeat(16)).subarray(0, 50))",
} as const

test.each(Object.entries(GREETINGS))('greeted with %s', async (_, greeting) => {
  const path = socket()
  const opening = open(kvmi, { vm: BAD, socket: path, wait: HURRY })
  await peers.raw(path, `socket.on('connect', () => { ${greeting} })`)
  await expect(opening).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
})

test('a QEMU that hangs up behind our half of the handshake wants a secret', async () => {
  const path = socket()
  const opening = open(kvmi, { vm: BAD, socket: path, wait: HURRY })
  await peers.raw(
    path,
    "socket.on('connect', () => socket.write(hello('bad', '00'.repeat(16)))); socket.on('data', () => socket.destroy())",
  )
  await expect(opening).rejects.toMatchObject({ code: 'VM_NOT_FOUND', message: expect.stringContaining('secret') })
})

test('a thousand connections that say nothing keep no QEMU away', { timeout: 20_000 }, async () => {
  const path = socket()
  const opening = open(kvmi, { vm: BAD, socket: path, wait: 10_000, timeout: 1000 })
  opening.catch(() => undefined)
  await peers.raw(
    path,
    `
    const { createConnection } = process.getBuiltinModule('node:net')
    for (let count = 0; count < 1000; count++) createConnection(${JSON.stringify(path)}).on('error', () => {})
    `,
  )
  const { badPeer } = await import('./bad-peer.testing.ts')
  await badPeer(peers, path, '')
  const vm = await opening
  vm.memory.read(0, page)
  await vm.close()
})
