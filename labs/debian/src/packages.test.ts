import { expect, test } from 'vitest'
import { unpacked } from './packages.ts'

test('refuses what cannot be before it fetches anything', () => {
  expect(() => unpacked({ packages: ['a'], suite: '../sid' })).toThrow('no release of Debian called "../sid"')
  expect(() => unpacked({ packages: ['a'], suite: ['sid', ''] })).toThrow('no release of Debian called ""')
  expect(() => unpacked({ sources: ['bochs'] })).toThrow('need a suite')
})
