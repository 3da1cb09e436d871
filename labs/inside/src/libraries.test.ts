import fc from 'fast-check'
import { expect, test } from 'vitest'
import { loaderList } from './libraries.ts'

test('what the dynamic loader lists', () => {
  const text = [
    '\tlinux-vdso.so.1 (0x00007ffd6b5f2000)',
    '\tlibm.so.6 => /root of all/lib/x86_64-linux-gnu/libm.so.6 (0x00007f2d1a121000)',
    '\tlibgone.so.1 => not found',
    '\t/lib64/ld-linux-x86-64.so.2 => /root/lib64/ld-linux-x86-64.so.2 (0x00007f2d1a478000)',
    '\tstatically linked',
    '',
  ].join('\n')
  expect(loaderList(text)).toEqual({
    found: ['/root of all/lib/x86_64-linux-gnu/libm.so.6', '/root/lib64/ld-linux-x86-64.so.2'],
    missing: ['libgone.so.1'],
  })
})

test('any text is taken', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const { found, missing } = loaderList(text)
      expect(found.length + missing.length).toBeLessThanOrEqual(text.split('\n').length)
    }),
  )
})
