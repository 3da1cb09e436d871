import { expect, test } from 'vitest'
import type { Vm } from './capability.ts'
import { demand, supports } from './capability.ts'
import { MicrovmiError } from './errors.ts'
import { type FakeBackend, fakeDriver } from './fake.testing.ts'
import { open } from './open.ts'

async function openFake() {
  const { driver, opened } = fakeDriver()
  const vm = await open(driver, { vm: 'guest' })
  return { vm, backend: opened[0] as FakeBackend }
}

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

test('supports and demand tell what is there', async () => {
  const { vm } = await openFake()
  expect(supports(vm, 'pause', 'memory.read')).toBe(true)
  expect(supports(vm, 'pause', 'views')).toBe(false)
  expect(() => demand(vm as Vm, 'views')).toThrow(/second-level paging/)
})

test('a missing capability is one clear error with driver, capability and reason', async () => {
  const { vm } = await openFake()
  const all = vm as typeof vm & Vm<'views' | 'inject' | 'memory.alloc' | 'events.msr'>
  expect(() => all.views).toThrow(/fake:guest lacks views: this host has no second-level paging/)
  expect(() => all.inject(0, { type: 'nmi' })).toThrow(failing('UNSUPPORTED'))
  expect(() => all.memory.allocate()).toThrow(failing('UNSUPPORTED'))
  expect(() => all.intercept({ kind: 'msr', msr: 1 })).toThrow(failing('UNSUPPORTED'))
})

test.each([-1, 2, 0.5, Number.NaN])('vcpu %s is refused', async (vcpu) => {
  const { vm } = await openFake()
  expect(() => vm.readRegisters(vcpu)).toThrow(failing('BAD_ARGUMENT'))
  expect(() => vm.writeRegisters(vcpu, { rax: 1n })).toThrow(failing('BAD_ARGUMENT'))
  expect(() => vm.readMsr(vcpu, 1)).toThrow(failing('BAD_ARGUMENT'))
})

test('registers that cannot be written, or not that value, are refused before anything is written', async () => {
  const { vm, backend } = await openFake()
  expect(() => vm.writeRegisters(0, { rax: 1n, cr3: 1n })).toThrow(failing('UNSUPPORTED'))
  expect(() => vm.writeRegisters(0, { rax: -1n })).toThrow(failing('BAD_ARGUMENT'))
  expect(() => vm.writeRegisters(0, { rip: 2n ** 64n })).toThrow(failing('BAD_ARGUMENT'))
  expect(() => vm.writeRegisters(0, { rip: 7 as unknown as bigint })).toThrow(failing('BAD_ARGUMENT'))
  expect(backend.log.calls).toEqual([])
  vm.writeRegisters(1, { rax: 1n, rip: 2n ** 64n - 1n })
  expect(backend.log.calls).toEqual(['write registers of 1'])
})

test('pauses are counted: the backend sees the first and the last', async () => {
  const { vm, backend } = await openFake()
  const first = vm.pause()
  const second = vm.pause()
  first.end()
  first.end()
  expect(vm.runState()).toBe('paused')
  expect(() => vm.setRunState('running')).toThrow(failing('BUSY'))
  second.end()
  expect(vm.runState()).toBe('running')
  expect(backend.log.calls).toEqual(['pause', 'resume'])
  vm.setRunState('paused')
  expect(() => vm.setRunState('stopped' as 'paused')).toThrow(failing('BAD_ARGUMENT'))
})

test('after close, every member throws CLOSED; close again is harmless', async () => {
  const { vm, backend } = await openFake()
  const lease = vm.pause()
  await vm.close()
  await vm.close()
  expect(backend.log.calls).toEqual(['pause', 'resume', 'release', 'close'])
  lease.end()
  expect(vm.closed).toBe(true)
  const calls = [
    () => vm.memory.read(0, new Uint8Array(1)),
    () => vm.memory.write(0, new Uint8Array(1)),
    () => vm.memory.regions(),
    () => vm.memory.readMany([]),
    () => vm.memory.map(0x10000, 1, () => 0),
    () => vm.readRegisters(0),
    () => vm.writeRegisters(0, {}),
    () => vm.readMsr(0, 1),
    () => vm.pause(),
    () => vm.runState(),
    () => vm.intercept({ kind: 'cr', register: 'cr3' }),
  ]
  for (const call of calls) expect(call).toThrow(failing('CLOSED'))
  await expect(vm.memory.pieces()[Symbol.asyncIterator]().next()).rejects.toEqual(failing('CLOSED'))
})

test('release does every step although one fails, and tells; a VM that has gone is no failure', async () => {
  const { vm, backend } = await openFake()
  vm.pause()
  backend.failing.set('resume', new Error('stuck'))
  await expect(vm.close()).rejects.toThrow('stuck')
  expect(backend.log.calls).toEqual(['pause', 'resume', 'release', 'close'])

  const gone = await openFake()
  gone.vm.pause()
  gone.backend.failing.set('resume', new MicrovmiError('VM_GONE', 'killed'))
  await gone.vm.close()
  expect(gone.backend.log.calls).toEqual(['pause', 'resume', 'release', 'close'])
})

test('a driver brings members of its own, which end with the Vm', async () => {
  const { driver } = fakeDriver()
  const vm = await open(
    {
      ...driver,
      open: async (request: Parameters<typeof driver.open>[0]) =>
        Object.assign(await driver.open(request), { extensions: { 'acme.screen': { screenshot: () => 'pixels' } } }),
    },
    { vm: 'guest' },
  )
  const extended = vm as typeof vm & { screenshot(): string }
  expect(extended.screenshot()).toBe('pixels')
  await vm.close()
  expect(() => extended.screenshot()).toThrow(failing('CLOSED'))
})
