import fc from 'fast-check'
import { expect, test } from 'vitest'
import { guidIn, normalId } from './guid.ts'
import { parseHostVms } from './host-vms.ts'
import { chosen, mergedListings } from './listings.ts'

const A = '3f2504e0-4f89-11d3-9a0c-0305e82c3301'
const B = '3f2504e0-4f89-11d3-9a0c-0305e82c3302'
const C = '3f2504e0-4f89-11d3-9a0c-0305e82c3303'

const partitions = [
  { id: A, name: 'Ünïcode 虚拟机 🖥' },
  { id: B, name: '' },
  { id: '0x7', name: 'twin' },
]
const host = [
  { id: B, name: 'twin', state: 'paused' },
  { id: C, name: 'off', state: 'stopped' },
] as const

test('a listing has what the library sees and what the host knows', () => {
  expect(mergedListings(partitions, host)).toEqual([
    { vm: A, id: A, name: 'Ünïcode 虚拟机 🖥', state: 'unknown' },
    { vm: B, id: B, name: 'twin', state: 'paused' },
    { vm: '0x7', id: '0x7', name: 'twin', state: 'unknown' },
    { vm: C, id: C, name: 'off', state: 'stopped', hindrance: 'it is off: start it' },
  ])
  expect(mergedListings(partitions, [])[1]).toMatchObject({ name: B })
})

test('a VM is chosen by name or id, and the error says what there is', () => {
  expect(chosen('Ünïcode 虚拟机 🖥', partitions, host).id).toBe(A)
  expect(chosen(`{${A.toUpperCase()}}`, partitions, host).id).toBe(A)
  expect(chosen('0X7', partitions, host).id).toBe('0x7')
  expect(() => chosen('twin', partitions, host)).toThrow(/several VMs are called 'twin': open one by id \(.*, 0x7\)/)
  expect(() => chosen('off', partitions, host)).toThrow(/'off' cannot be opened: it is off: start it/)
  expect(() => chosen('none', partitions, host)).toThrow(/no partition is called 'none'. Running: Ünïcode/)
  expect(() => chosen('x'.repeat(5000), [], [])).toThrow(/^no partition is called 'x{100}…'. Running: none that can/)
})

test('a GUID is found in braces, and not inside a longer word', () => {
  expect(guidIn(`"C:\\vmwp.exe" ${A.toUpperCase()}`)).toBe(A)
  expect(guidIn(`z${A}`)).toBeUndefined()
  expect(normalId(`{${B.toUpperCase()}}`)).toBe(B)
})

test("the host's answer is read whatever is in it", () => {
  const base64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64')
  const answer = [
    { id: A.toUpperCase(), name: '名 "x"', state: 'Running' },
    { id: B, name: 'b', state: 'constructor' },
    { id: 'none', name: 'c', state: 'Off' },
    null,
    { id: C, name: 5, state: 'Off' },
  ]
  expect(parseHostVms(`${base64(answer)}\r\n`)).toEqual([
    { id: A, name: '名 "x"', state: 'running' },
    { id: B, name: 'b', state: 'unknown' },
  ])
  fc.assert(fc.property(fc.string(), (text) => Array.isArray(parseHostVms(text))))
  fc.assert(fc.property(fc.jsonValue(), (value) => Array.isArray(parseHostVms(base64(value)))))
})
