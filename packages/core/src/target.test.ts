import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatTarget, parseTarget } from './target.ts'

test.each([
  ['kvm:debian', 'debian'],
  ['kvm:my own vm', 'my own vm'],
  ['kvm:/run/vm.sock', '/run/vm.sock'],
  ['kvm:a/../b', 'a/../b'],
  ['kvm:a#b', 'a#b'],
  ['kvm:what%3f', 'what?'],
  ['kvm:50%25', '50%'],
  ['kvm:C:\\vm:1', 'C:\\vm:1'],
  ['kvm:Überraschung 虚拟机', 'Überraschung 虚拟机'],
  ['kvm:', ''],
])('%s names %s', (text, vm) => {
  expect(parseTarget(text)).toEqual({ scheme: 'kvm', vm, options: {} })
})

test('options', () => {
  const { vm, options } = parseTarget('kvm-x:a?qmp=/run/a%26b&timeout=5=6&empty=')
  expect(vm).toBe('a')
  expect({ ...options }).toEqual({ qmp: '/run/a&b', timeout: '5=6', empty: '' })
})

test('an option called like a member of every object is an option like others', () => {
  expect(parseTarget('kvm:a?__proto__=1&constructor=2').options).toHaveProperty('constructor', '2')
})

test.each([
  '',
  'debian',
  ':debian',
  'KVM:debian',
  '1kvm:x',
  'k vm:x',
  'kvm:a?b',
  'kvm:a?',
  'kvm:a?=1',
  'kvm:a?b=1&b=2',
  'kvm:a%',
  'kvm:%ff',
])('%j is refused', (text) => {
  expect(() => parseTarget(text)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
})

const text = fc.string({ unit: 'binary' }).filter((value) => Buffer.from(value).toString() === value)

test('what formatTarget writes, parseTarget reads', () => {
  const scheme = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/)
  fc.assert(
    fc.property(scheme, text, fc.dictionary(text.filter(Boolean), text), (scheme, vm, options) => {
      const read = parseTarget(formatTarget({ scheme, vm, options }))
      expect({ ...read, options: { ...read.options } }).toEqual({ scheme, vm, options: { ...options } })
    }),
  )
})
