import { expect, test } from 'vitest'
import { MicrovmiError } from './errors.ts'
import { type FakeBackend, fakeDriver } from './fake.testing.ts'
import { REPORT_LIMIT } from './listener.ts'
import { open } from './open.ts'

async function openFake() {
  const { driver, opened } = fakeDriver()
  const vm = await open(driver, { vm: 'guest' })
  return { vm, backend: opened[0] as FakeBackend }
}

const cr3 = { kind: 'cr', register: 'cr3' } as const
const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

test('is armed by the first step of a loop and disarmed by its end', async () => {
  const { vm, backend } = await openFake()
  const intercept = vm.intercept(cr3)
  expect(backend.log.calls).toEqual([])
  const events = intercept[Symbol.asyncIterator]()
  expect(backend.log.calls).toEqual(['arm'])
  await events.return?.()
  expect(backend.log.calls).toEqual(['arm', 'disarm'])
  await expect(intercept.ended).resolves.toBeUndefined()
})

test('each event proceeds when the loop goes on, unless it was answered', async () => {
  const { vm, backend } = await openFake()
  const seen: bigint[] = []
  setImmediate(() => {
    for (const value of [1n, 2n, 3n]) backend.writeCr3(value)
  })
  for await (const event of vm.intercept(cr3)) {
    expect(event).toMatchObject({ kind: 'cr', register: 'cr3', old: 0n, vcpu: 0, stops: 'vcpu', complete: true })
    seen.push(event.new)
    if (event.new === 2n) event.reply({ deny: true })
    if (event.new === 3n) break
  }
  expect(seen).toEqual([1n, 2n, 3n])
  expect(backend.log.replies.map(({ parts }) => parts)).toEqual([{}, { deny: true }, {}])
  expect(backend.log.calls).toEqual(['arm', 'reply', 'reply', 'reply', 'disarm'])
})

test('a loop that throws answers, disarms and throws', async () => {
  const { vm, backend } = await openFake()
  setImmediate(() => {
    backend.writeCr3(1n)
    backend.writeCr3(2n, 1)
  })
  const loop = async () => {
    for await (const event of vm.intercept(cr3)) throw new Error(`at ${event.new}`)
  }
  await expect(loop()).rejects.toThrow('at 1')
  expect(backend.log.calls).toEqual(['arm', 'reply', 'reply', 'disarm'])
})

test('held events are answered in any order', async () => {
  const { vm, backend } = await openFake()
  setImmediate(() => {
    backend.writeCr3(1n, 0)
    backend.writeCr3(2n, 1)
  })
  const held: { reply(parts?: { value: bigint }): void }[] = []
  for await (const event of vm.intercept(cr3)) {
    event.hold()
    held.push(event)
    if (held.length === 2) {
      expect(backend.log.replies).toHaveLength(0)
      held[1]?.reply({ value: 5n })
      held[0]?.reply()
      break
    }
  }
  expect(backend.log.replies.map(({ event, parts }) => [event.vcpu, parts])).toEqual([
    [1, { value: 5n }],
    [0, {}],
  ])
  expect(() => held[0]?.reply()).toThrow(failing('ALREADY_ANSWERED'))
})

test('what is held proceeds when the intercept ends, and cannot be answered any more', async () => {
  const { vm, backend } = await openFake()
  setImmediate(() => backend.writeCr3(1n))
  let held: { reply(): void } | undefined
  for await (const event of vm.intercept(cr3)) {
    event.hold()
    held = event
    await vm.close()
  }
  expect(backend.log.calls).toEqual(['arm', 'reply', 'disarm', 'release', 'close'])
  expect(() => held?.reply()).toThrow(failing('CLOSED'))
})

test('a bad reply leaves the event unanswered', async () => {
  const { vm, backend } = await openFake()
  setImmediate(() => backend.writeCr3(1n))
  for await (const event of vm.intercept(cr3)) {
    expect(() => event.reply({ value: -1n })).toThrow(failing('BAD_ARGUMENT'))
    expect(() => event.reply({ registers: { cr3: 1n } })).toThrow(failing('UNSUPPORTED'))
    expect(() => event.reply({ view: 1 } as object)).toThrow(failing('UNSUPPORTED'))
    expect(event.answered).toBe(false)
    event.reply({ value: 4n, deny: false })
    expect(event.answered).toBe(true)
    break
  }
  expect(backend.log.replies.map(({ parts }) => parts)).toEqual([{ value: 4n }])
})

test('a handler answers within the delivery', async () => {
  const { vm, backend } = await openFake()
  const intercept = vm.intercept(cr3, (event) => (event.new === 2n ? { deny: true } : undefined))
  backend.writeCr3(1n)
  backend.writeCr3(2n)
  expect(backend.log.replies.map(({ parts }) => parts)).toEqual([{}, { deny: true }])
  expect(() => intercept[Symbol.asyncIterator]()).toThrow(failing('BUSY'))
  intercept.close()
  intercept.close()
  expect(backend.log.armed.size).toBe(0)
  expect(backend.writeCr3(3n).armed).toEqual([])
})

test('a handler that throws: the guest proceeds, the intercept ends and tells', async () => {
  const { vm, backend } = await openFake()
  const intercept = vm.intercept(cr3, () => {
    throw new Error('mine')
  })
  backend.writeCr3(1n)
  await expect(intercept.ended).rejects.toThrow('mine')
  expect(backend.log.calls).toEqual(['arm', 'reply', 'disarm'])
})

test('an asynchronous handler is refused: its event proceeds', async () => {
  const { vm, backend } = await openFake()
  const handler = (async () => ({})) as unknown as () => undefined
  const intercept = vm.intercept(cr3, handler)
  backend.writeCr3(1n)
  await expect(intercept.ended).rejects.toEqual(failing('BAD_ARGUMENT'))
  expect(backend.log.replies).toHaveLength(1)
})

test('equal requests are armed once, and an event waits for all who listen', async () => {
  const { vm, backend } = await openFake()
  const first = vm.intercept({ register: 'cr3', kind: 'cr', mask: undefined } as typeof cr3, () => ({ value: 1n }))
  const second = vm.intercept(cr3, (event) => event.hold())
  expect(backend.log.armed.size).toBe(1)
  backend.writeCr3(9n)
  expect(backend.log.replies).toHaveLength(0)
  second.close()
  expect(backend.log.replies.map(({ parts }) => parts)).toEqual([{ value: 1n }])
  expect(backend.log.armed.size).toBe(1)
  first.close()
  expect(backend.log.armed.size).toBe(0)
})

test('a request that cannot be armed leaves none of its companions armed', async () => {
  const { vm, backend } = await openFake()
  vm.intercept(cr3, () => undefined)
  backend.failing.set('arm', new MicrovmiError('BUSY', 'no debug register is free'))
  const lifecycle = { kind: 'lifecycle' } as const
  expect(() => vm.intercept([cr3, lifecycle], () => undefined)).toThrow(failing('BUSY'))
  expect([...backend.log.armed.values()]).toEqual([cr3])
  backend.failing.clear()
  vm.intercept([lifecycle], () => undefined)
  expect(backend.log.armed.size).toBe(2)
})

test.each([undefined, null, 7, {}, { kind: 5 }])('%j is no request', async (request) => {
  const { vm } = await openFake()
  expect(() => vm.intercept(request as unknown as typeof cr3)).toThrow(failing('BAD_ARGUMENT'))
  expect(() => (vm.intercept as () => void)()).toThrow(failing('BAD_ARGUMENT'))
})

test('until ends the loop when the signal is aborted', async () => {
  const { vm, backend } = await openFake()
  const controller = new AbortController()
  setImmediate(() => controller.abort())
  for await (const _ of vm.intercept(cr3).until(controller.signal)) expect.unreachable()
  expect(backend.log.calls).toEqual(['arm', 'disarm'])
  for await (const _ of vm.intercept(cr3).until(AbortSignal.abort())) expect.unreachable()
})

test('a VM that goes away ends the loop with the error, and nothing is answered', async () => {
  const { vm, backend } = await openFake()
  const loop = async () => {
    for await (const event of vm.intercept(cr3)) event.hold()
  }
  const looping = loop()
  backend.writeCr3(1n)
  await new Promise(setImmediate)
  backend.sink?.fail(new MicrovmiError('VM_GONE', 'killed'))
  await expect(looping).rejects.toEqual(failing('VM_GONE'))
  expect(backend.log.replies).toHaveLength(0)
})

test('reports take no reply and are bounded; what was dropped is counted', async () => {
  const { vm, backend } = await openFake()
  const intercept = vm.intercept({ kind: 'lifecycle' })
  const events = intercept[Symbol.asyncIterator]()
  const fields = { change: 'reset' } as const
  const report = { kind: 'lifecycle', armed: [1], vcpu: 0, stops: 'none', complete: true, fields } as const
  for (let count = 0; count < REPORT_LIMIT + 3; count++) backend.sink?.deliver(report)
  expect(intercept.dropped).toBe(3)
  const { value } = await events.next()
  expect(() => value.reply()).toThrow(failing('BAD_ARGUMENT'))
  intercept.close()
  expect(backend.log.replies).toHaveLength(0)
})

test('an event that nobody asked for any more proceeds', async () => {
  const { vm, backend } = await openFake()
  vm.intercept(cr3, () => undefined).close()
  backend.sink?.deliver({
    kind: 'cr',
    armed: [1],
    vcpu: 1,
    stops: 'vcpu',
    complete: true,
    fields: { register: 'cr3', old: 1n, new: 2n },
  })
  expect(backend.log.replies.map(({ parts }) => parts)).toEqual([{}])
})
