import type { BackendEvent } from '@microvmi/core/driver'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { MockBackend } from './backend.ts'
import { createGuest, type Guest, mock } from './index.ts'

/*
 * What a backend owes core, without core in between: core would hide what is wrong here.
 */

let guest: Guest
let backend: MockBackend

beforeEach(async () => {
  guest = createGuest({ name: 'backend', seed: 6, vcpus: 1 })
  backend = (await mock.open({ vm: 'backend', options: {}, timeout: 1000, signal: undefined })) as MockBackend
})

afterEach(async () => {
  backend.release()
  await backend.close()
  guest.remove()
})

/** Receives events: `answer` is called within each delivery. */
function receive(answer: (event: BackendEvent) => void): BackendEvent[] {
  const events: BackendEvent[] = []
  backend.events.listen({
    deliver(event) {
      events.push(event)
      answer(event)
    },
    fail(error) {
      throw error
    },
  })
  return events
}

test('an event that was not delivered when its request ends is not delivered, and holds nothing', () => {
  const events = receive(({ armed }) => {
    if (armed.includes(1)) backend.events.disarm(2)
  })
  backend.events.arm({ kind: 'cr', register: 'cr3', asynchronous: true }, 1)
  backend.events.arm({ kind: 'cr', register: 'cr3' }, 2)
  guest.runNow(20_000)
  expect(events.length).toBeGreaterThan(5)
  expect(new Set(events.map(({ armed }) => armed.join()))).toEqual(new Set(['1']))
  expect(guest.held).toEqual([])
  expect(guest.vcpu(0).clock).toBe(20_000)
})

test('nor is one that was to come behind another of the same instruction', () => {
  const events = receive((event) => {
    if (event.kind === 'watchpoint') backend.events.disarm(2)
    backend.events.reply(event, {})
  })
  backend.events.arm({ kind: 'watchpoint', address: 0x60_0000n, length: 8, access: 'w' }, 1)
  guest.runNow(500)
  events.length = 0
  backend.events.arm({ kind: 'singlestep' }, 2)
  guest.runNow(500)
  const first = events.findIndex(({ kind }) => kind === 'watchpoint')
  expect(first).toBeGreaterThanOrEqual(0)
  expect(events.slice(first).filter(({ kind }) => kind === 'singlestep')).toEqual([])
})

test('one event tells of all requests that it answers to', () => {
  const events = receive((event) => backend.events.reply(event, {}))
  backend.events.arm({ kind: 'cr', register: 'cr3' }, 1)
  backend.events.arm({ kind: 'cr', register: 'cr3', onChange: false }, 2)
  guest.runNow(10_000)
  expect(events.length).toBeGreaterThan(3)
  for (const { armed } of events) expect(armed).toEqual([1, 2])
})

test('an answer that comes late or twice does nothing', () => {
  const events = receive(() => {})
  backend.events.arm({ kind: 'cr', register: 'cr3' }, 1)
  guest.runNow(10_000)
  const [event] = events
  if (!event) throw new Error('no event')
  backend.events.disarm(1)
  const before = guest.vcpu(0).registers
  backend.events.reply(event, { registers: { rax: 5n } })
  expect(guest.vcpu(0).registers).toEqual(before)
})

test.each([
  [{ kind: 'cr', register: 'cr9' }],
  [{ kind: 'msr', msr: -1 }],
  [{ kind: 'watchpoint', address: 0n, length: 3, access: 'r' }],
  [{ kind: 'watchpoint', address: 0n, length: 4, access: 'x' }],
  [{ kind: 'memory', address: -1, length: 1, access: 'r' }],
  [{ kind: 'memory', address: 0, length: 0, access: 'r' }],
  [{ kind: 'memory', address: 0, length: 1, access: 'q' }],
  [{ kind: 'memory', address: 0, length: 1, access: 'r', view: 3 }],
])('%o is refused, and nothing armed', (request) => {
  receive(() => {})
  expect(() => backend.events.arm(request as never, 1)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  guest.runNow(5000)
  expect(guest.held).toEqual([])
})

test('a kind that it does not know is unsupported', () => {
  const unknown = { kind: 'balloon' } as never
  expect(() => backend.events.arm(unknown, 1)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
})
