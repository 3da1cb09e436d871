import fc from 'fast-check'
import { expect, test } from 'vitest'
import { failed, hresultError, win32Error } from './errors.ts'

test('what is known names a code and what to do', () => {
  expect(hresultError('LoadSavedStateFile', -2147024891)).toMatchObject({
    code: 'DENIED',
    message: 'LoadSavedStateFile failed with HRESULT 0x80070005: access was refused: run as administrator',
  })
  expect(hresultError('LoadSavedStateFile', 0x8007000d).code).toBe('PROTOCOL')
  expect(hresultError('GetVpCount', 0x80004001).code).toBe('UNSUPPORTED')
  expect(win32Error('VidGetHvPartitionId', 6).code).toBe('VM_GONE')
  expect(win32Error('VidGetHvPartitionId', 0).message).toMatch(/no reason/)
})

test('every code of 32 bits has a text, signed or not', () => {
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 }), (code) => {
      expect(hresultError('Call', code).message).toMatch(/^Call failed with HRESULT 0x[0-9a-f]{8}: ./)
      expect(failed(code)).toBe(code < 0 || code >= 2 ** 31)
    }),
  )
})
