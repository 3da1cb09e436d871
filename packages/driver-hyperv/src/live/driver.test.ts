import { open } from '@microvmi/core'
import { expect, test } from 'vitest'
import { hyperv } from '../index.ts'

test('elsewhere than on Windows it says what it needs', async ({ skip }) => {
  if (process.platform === 'win32') skip('this is Windows')
  expect(await hyperv.probe()).toEqual({ usable: false, reason: expect.stringMatching(/^needs Windows/) })
  await expect(open(hyperv, { vm: 'any' })).rejects.toMatchObject({ code: 'DRIVER_UNAVAILABLE' })
  await expect(hyperv.list({ timeout: 1000 })).rejects.toMatchObject({ code: 'DRIVER_UNAVAILABLE' })
})

test('no capability for events is promised or possible', () => {
  const names = [...hyperv.promises, ...hyperv.possible]
  expect(names.filter((name) => /^(events|reply)\./.test(name))).toEqual([])
})
