import { list, open, supports } from '@microvmi/core'
import { afterEach, expect, test } from 'vitest'
import { createGuest, type Guest, type GuestOptions, mock } from './index.ts'

const made: Guest[] = []

function make(options: GuestOptions): Guest {
  const guest = createGuest(options)
  made.push(guest)
  return guest
}

afterEach(() => {
  for (const guest of made.splice(0)) guest.remove()
})

const withCode = (code: string) => expect.objectContaining({ code })

test('guests are listed, with the demo', async () => {
  make({ name: 'one' })
  make({ name: 'two' }).pause()
  const { vms, failures } = await list({ driver: mock })
  expect(failures).toEqual([])
  expect(vms.map(({ target, state }) => [target, state])).toEqual([
    ['mock:one', 'running'],
    ['mock:two', 'paused'],
    ['mock:demo', 'running'],
  ])
})

test('guests of one name have their ids to tell them apart', async () => {
  const guests = [make({ name: 'twin' }), make({ name: 'twin' })]
  await expect(open(mock, { vm: 'twin' })).rejects.toThrow(withCode('VM_AMBIGUOUS'))
  await expect(open({ vm: 'twin' })).rejects.toThrow(withCode('VM_AMBIGUOUS'))
  const { vms } = await list({ driver: mock })
  for (const guest of guests) {
    const entry = vms.find(({ id }) => id === guest.id)
    if (!entry) throw new Error('not listed')
    const vm = await open(entry)
    expect([vm.name, vm.id]).toEqual(['twin', guest.id])
    await vm.close()
  }
})

test('a name with everything in it', async () => {
  const name = 'a name? with #, /../ & 100 % Ümläut'
  make({ name })
  const { vms } = await list({ driver: mock })
  const vm = await open(vms[0]?.target ?? '')
  expect(vm.name).toBe(name)
  await vm.close()
})

test('the demo runs by itself, each open its own', async () => {
  const vm = await open('mock:demo?seed=7&vcpus=3', { require: ['registers.read', 'events.cr'] })
  const other = await open(mock, { vm: 'demo' })
  expect([vm.vcpuCount, other.vcpuCount]).toEqual([3, 2])
  expect(vm.info.details.seed).toBe(7)
  let seen = 0
  for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
    expect(event.complete).toBe(true)
    seen += 1
    if (seen === 10) break
  }
  await vm.close()
  await other.close()
})

test('what cannot be opened', async () => {
  make({ name: 'there' })
  await expect(open(mock, { vm: 'nowhere' })).rejects.toThrow(withCode('VM_NOT_FOUND'))
  await expect(open(mock, { vm: 'there', seed: 4 })).rejects.toThrow(withCode('BAD_ARGUMENT'))
  await expect(open('mock:demo?vcpus=0')).rejects.toThrow(withCode('BAD_ARGUMENT'))
  await expect(open('mock:demo?colour=red')).rejects.toThrow(withCode('BAD_ARGUMENT'))
})

test('a guest that was removed is gone', async () => {
  const guest = make({ name: 'short' })
  const vm = await open(mock, { vm: 'short' })
  guest.remove()
  expect(() => vm.memory.readUint8(0)).toThrow(withCode('VM_GONE'))
  await vm.close()
  await expect(open(mock, { vm: 'short' })).rejects.toThrow(withCode('VM_NOT_FOUND'))
})

test('what a guest lacks is refused with the reason', async () => {
  make({ name: 'poor', lacking: ['events.cr', 'memory.write', 'reply.deny'] })
  const vm = await open(mock, { vm: 'poor' })
  expect(supports(vm, 'events.cr')).toBe(false)
  expect(supports(vm, 'events.msr')).toBe(true)
  expect(() => vm.intercept({ kind: 'cr', register: 'cr3' })).toThrow('lacks events.cr: this guest was made without it')
  expect(() => vm.memory.writeUint8(0, 1)).toThrow(withCode('UNSUPPORTED'))
  await vm.close()
  await expect(open(mock, { vm: 'poor', require: ['events.cr'] })).rejects.toThrow(withCode('UNSUPPORTED'))
})

test.each(['memory.read', 'registers.read', 'msr.read'] as const)(
  'without %s there is nothing like it',
  async (one) => {
    make({ name: 'poorer', lacking: [one] })
    const vm = await open(mock, { vm: 'poorer' })
    const kind = one.split('.')[0] ?? ''
    expect([...vm.capabilities].filter((capability) => capability.startsWith(`${kind}.`))).toEqual([])
    expect(vm.capabilities.has('pause')).toBe(true)
    await vm.close()
  },
)

test('a slow open ends at its deadline, or when the caller gives up', async () => {
  make({ name: 'slow', openDelay: 60_000 })
  await expect(open(mock, { vm: 'slow', timeout: 20 })).rejects.toThrow(withCode('TIMEOUT'))
  const controller = new AbortController()
  const opening = open(mock, { vm: 'slow', timeout: 60_000, signal: controller.signal })
  setTimeout(() => controller.abort(), 5)
  await expect(opening).rejects.toThrow(withCode('ABORTED'))
})

test('a slow guest takes its time in every call', async () => {
  make({ name: 'slower', latency: 20 })
  const vm = await open(mock, { vm: 'slower' })
  const before = performance.now()
  vm.readRegisters(0)
  expect(performance.now() - before).toBeGreaterThan(15)
  await vm.close()
})

test.each([
  [{ vcpus: 0 }],
  [{ vcpus: 1.5 }],
  [{ memory: 5000 }],
  [{ memory: 2 ** 22 + 1 }],
  [{ seed: -1 }],
  [{ processes: [{ name: 'a name' }] }],
  [{ processes: [{ name: 'a', program: { source: '' } }] }],
  [{ processes: [{ name: 'a', dataPages: 0 }] }],
  [{ processes: Array.from({ length: 100 }, (_, index) => ({ name: `p${index}`, dataPages: 200 })) }],
])('a guest cannot be %j', (options) => {
  expect(() => make(options)).toThrow(withCode('BAD_ARGUMENT'))
})
