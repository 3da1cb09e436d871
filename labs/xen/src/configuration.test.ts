import { expect, test } from 'vitest'
import { configurationOf } from './configuration.ts'

test('a guest has what its type needs', () => {
  expect(configurationOf({ type: 'pvh' })).toMatch(/^name = "microvmi-pvh"\ntype = "pvh"\n/)
  expect(configurationOf({ type: 'pvh' })).not.toContain('device_model_override')
  expect(configurationOf({ type: 'pvh' })).toMatch(/^kernel = ".*\/kernel"$/m)
  expect(configurationOf({ type: 'hvm' })).toMatch(/^kernel = ".*\/kernel-hvm"$/m)
  expect(configurationOf({ type: 'hvm' })).toMatch(/^memory = 192\nvcpus = 1\n(.*\n)*device_model_override = /m)
})

test('what is asked for', () => {
  const text = configurationOf({
    ...{ type: 'pv', name: 'a-b.c', vcpus: 3, memoryMiB: 96, switching: true },
    configuration: 'altp2m = "external"',
  })
  for (const line of ['name = "a-b.c"', 'memory = 96', 'vcpus = 3', 'altp2m = "external"']) {
    expect(text.split('\n')).toContain(line)
  }
  expect(text).toMatch(/^cmdline = ".* MICROVMI_SWITCH=1"$/m)
})

test.each(['', 'a b', 'a"', '../a', '-a', 'a\nb'])('no name of a guest: %j', (name) => {
  expect(() => configurationOf({ type: 'pvh', name })).toThrow(RangeError)
})
