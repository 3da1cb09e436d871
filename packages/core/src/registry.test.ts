import { afterEach, expect, test, vi } from 'vitest'
import type { Driver } from './contract.ts'
import { fakeDriver } from './fake.testing.ts'
import { driverOf, register, registrations, unregister } from './registry.ts'

afterEach(() => {
  for (const { driver } of registrations()) unregister(driver)
})

test('a driver is found under its scheme; registering it again changes nothing', () => {
  const { driver } = fakeDriver('first')
  expect(register(register(driver))).toBe(driver)
  expect(registrations()).toHaveLength(1)
  expect(driverOf('first')).toBe(driver)
})

test('an unknown scheme names what is registered', () => {
  register(fakeDriver('first').driver)
  expect(() => driverOf('second')).toThrow(expect.objectContaining({ code: 'UNKNOWN_DRIVER' }))
  expect(() => driverOf('second')).toThrow(/first/)
})

test('two drivers of one scheme are registered without a throw and refused at use, both named', () => {
  const one = register(fakeDriver('same').driver)
  register({ ...one, package: '@other/same 2.0.0' })
  expect(() => driverOf('same')).toThrow(expect.objectContaining({ code: 'DRIVER_CONFLICT' }))
  expect(() => driverOf('same')).toThrow(/@test\/same 1\.0\.0; @other\/same 2\.0\.0/)
})

test.each([{ major: 0, minor: 2 }, { major: 1, minor: 0 }, undefined, {}, 'x', { major: '0', minor: 1 }])(
  'a driver of contract %j is refused at use',
  (contract) => {
    register({ ...fakeDriver('alien').driver, contract } as Driver)
    expect(() => driverOf('alien')).toThrow(expect.objectContaining({ code: 'CONTRACT_MISMATCH' }))
  },
)

test('two copies of core share one registry', async () => {
  vi.resetModules()
  const other = await import('./registry.ts')
  const { driver } = fakeDriver('shared')
  other.register(driver)
  expect(driverOf('shared')).toBe(driver)
})
