import { expect, test } from 'vitest'
import { hypervSaved } from '../index.ts'

test('elsewhere the package imports, and the driver says what it needs', async ({ skip }) => {
  if (process.platform === 'win32') skip('this is Windows')
  expect(await hypervSaved.probe()).toEqual({ usable: false, reason: expect.stringContaining('needs Windows') })
  expect(await hypervSaved.list({ timeout: 100 })).toEqual([])
})

test('bad input is refused before anything is loaded', async () => {
  const open = (vm: string, options = {}) => hypervSaved.open({ vm, options, timeout: 100, signal: undefined })
  await expect(open('a\0b')).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  await expect(open(' ')).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
  await expect(open('a', { snapshot: '\0' })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  for (const cacheBlocks of [-1, 0.5, Number.NaN, 2 ** 40]) {
    await expect(open('a', { cacheBlocks })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  }
})
