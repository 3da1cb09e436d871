import { expect, test, vi } from 'vitest'
import { badAddress, MicrovmiError } from './errors.ts'

test('carries its code, message, address and cause', () => {
  const cause = { call: 'xc_domain_pause', errno: 1 }
  const error = new MicrovmiError('DENIED', 'not dom0', { cause })
  expect(error).toMatchObject({ name: 'MicrovmiError', code: 'DENIED', message: 'not dom0', cause, address: undefined })
  expect(badAddress(0xdead000)).toMatchObject({ code: 'BAD_ADDRESS', address: 0xdead000 })
  expect(badAddress(0xdead000).message).toContain('0xdead000')
})

test('instanceof holds for errors of another copy of core', async () => {
  vi.resetModules()
  const other = await import('./errors.ts')
  expect(other.MicrovmiError).not.toBe(MicrovmiError)
  expect(new other.MicrovmiError('CLOSED', 'x')).toBeInstanceOf(MicrovmiError)
  expect(new MicrovmiError('CLOSED', 'x')).toBeInstanceOf(other.MicrovmiError)
})

test.each([new Error('x'), undefined, null, 'CLOSED', { code: 'CLOSED' }])('%s is none', (value) => {
  expect(value instanceof MicrovmiError).toBe(false)
})
