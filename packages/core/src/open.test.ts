import { afterEach, expect, test } from 'vitest'
import { fakeDriver } from './fake.testing.ts'
import { list } from './list.ts'
import { open } from './open.ts'
import { register, registrations, unregister } from './registry.ts'

afterEach(() => {
  for (const { driver } of registrations()) unregister(driver)
})

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

test('opens with a driver that nobody registered', async () => {
  const { driver, opened } = fakeDriver()
  const vm = await open(driver, { vm: 'guest', socket: '/run/x' })
  expect(vm.name).toBe('guest')
  expect(vm.info).toMatchObject({ driver: 'fake', hypervisor: 'Fake 1.0' })
  await vm.close()
  expect(opened[0]?.log.calls).toEqual(['release', 'close'])
})

test('opens by target, options read by the types that the driver states', async () => {
  const { driver } = fakeDriver()
  const seen: unknown[] = []
  register({
    ...driver,
    open(request: Parameters<typeof driver.open>[0]) {
      seen.push(request)
      return driver.open(request)
    },
  })
  await open('fake:a b?socket=/run/x%26y&fast=true&depth=3&timeout=70')
  expect(seen[0]).toMatchObject({ vm: 'a b', timeout: 70, options: { socket: '/run/x&y', fast: true, depth: 3 } })
})

test.each(['fake:x?speed=1', 'fake:x?fast=yes', 'fake:x?depth=deep', 'fake:x?depth=', 'fake:', 'fake:x?timeout=0'])(
  '%s is refused',
  async (target) => {
    const { driver, opened } = fakeDriver()
    register(driver)
    await expect(open(target)).rejects.toEqual(failing('BAD_ARGUMENT'))
    expect(opened).toHaveLength(0)
  },
)

test('opens by name when one driver lists it, and by an entry of the list', async () => {
  register(fakeDriver('one', ['a?', 'b']).driver)
  register(fakeDriver('two', ['c']).driver)
  expect((await open({ vm: 'a?' })).info.driver).toBe('one')
  const { vms } = await list()
  expect(vms.map(({ target }) => target)).toEqual(['one:a%3f', 'one:b', 'two:c'])
  for (const entry of vms) expect((await open(entry)).name).toBe(entry.name)
})

test('a name that two drivers list is ambiguous: the error gives the targets', async () => {
  register(fakeDriver('one').driver)
  register(fakeDriver('two').driver)
  await expect(open({ vm: 'guest' })).rejects.toThrow(/one:guest.*two:guest/)
  await expect(open({ vm: 'guest' })).rejects.toEqual(failing('VM_AMBIGUOUS'))
})

test('a name that none lists: the error says what each driver said', async () => {
  register(fakeDriver('one').driver)
  const { driver } = fakeDriver('two')
  register({ ...driver, list: () => Promise.reject(new Error('no such device')) })
  await expect(open({ vm: 'other' })).rejects.toEqual(failing('VM_NOT_FOUND'))
  await expect(open({ vm: 'other' })).rejects.toThrow(/one:guest.*two: no such device/)
})

test('a driver whose list never ends does not hold the others up', async () => {
  register(fakeDriver('one').driver)
  const { driver } = fakeDriver('two')
  register({ ...driver, list: () => new Promise(() => {}) })
  const { vms, failures } = await list({ timeout: 20 })
  expect(vms).toHaveLength(1)
  expect(failures).toEqual([{ driver: 'two', error: failing('TIMEOUT') }])
})

test('what is required and missing closes the VM again and says why', async () => {
  const { driver, opened } = fakeDriver()
  await expect(open(driver, { vm: 'guest', require: ['views'] })).rejects.toThrow(/second-level paging/)
  await expect(open(driver, { vm: 'guest', require: ['views'] })).rejects.toEqual(failing('UNSUPPORTED'))
  expect(opened[0]?.log.calls).toEqual(['release', 'close'])
})

test('a backend that breaks its promises is refused and closed', async () => {
  const { driver, opened } = fakeDriver()
  const lying = {
    ...driver,
    open: async (request: Parameters<typeof driver.open>[0]) =>
      Object.assign(await driver.open(request), { capabilities: ['pause'] as const }),
  }
  await expect(open(lying, { vm: 'guest' })).rejects.toEqual(failing('CONTRACT_MISMATCH'))
  expect(opened[0]?.log.calls).toEqual(['release', 'close'])
  await expect(open({ ...driver, contract: { major: 9, minor: 0 } }, { vm: 'guest' })).rejects.toEqual(
    failing('CONTRACT_MISMATCH'),
  )
})

test('a signal that is aborted already opens nothing', async () => {
  const { driver, opened } = fakeDriver()
  await expect(open(driver, { vm: 'guest', signal: AbortSignal.abort('enough') })).rejects.toMatchObject({
    code: 'ABORTED',
    cause: 'enough',
  })
  expect(opened).toHaveLength(0)
})
