import { writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'
import { expect, test } from 'vitest'

const libraries = () => process.env.MICROVMI_WINDOWS_LIBRARIES ?? ''

test('the tests run on Node for Windows', () => {
  expect(process.platform).toBe('win32')
  expect(process.arch).toBe('x64')
  expect(release()).toMatch(/^10\./)
})

test('koffi calls a library of Windows', () => {
  const kernel = koffi.load('kernel32.dll')
  expect(kernel.func('uint32 GetCurrentProcessId()')()).toBe(process.pid)
})

test('koffi calls a library that was built here: numbers, buffers, texts, errors', () => {
  const lab = koffi.load(join(libraries(), 'lab.dll'))
  const add = lab.func('int32 LabAdd(uint64 one, uint32 other, void *sum)')
  const sum = new BigUint64Array(1)
  expect(add(2n ** 40n, 2, sum)).toBe(1)
  expect(sum[0]).toBe(2n ** 40n + 2n)
  const lastError = koffi.load('kernel32.dll').func('uint32 GetLastError()')
  expect([add(1, 1, null), lastError()]).toEqual([0, 87])
  const lengthOf = lab.func('int32 LabLength(str16 text, void *units)')
  const units = new Uint32Array(1)
  expect([lengthOf('Köln 北京 😀', units), units[0]]).toEqual([0, 10])
  expect(lengthOf(null, units)).toBe(0x8007_000d | 0)
})

test('the host’s files are there, under Z:', () => {
  expect(process.cwd()).toMatch(/^[A-Z]:\\/)
  expect(() => writeFileSync('here', 'x')).not.toThrow()
})
