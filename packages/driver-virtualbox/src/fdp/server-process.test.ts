import fc from 'fast-check'
import { expect, test } from 'vitest'
import { mappedFiles } from './server-process.ts'

test('files in maps are told by device and inode', () => {
  const maps = [
    '55d1c0a00000-55d1c0a21000 r--p 00000000 08:02 1835048                    /usr/lib/virtualbox/VirtualBoxVM',
    '7f0000000000-7f0001400000 rw-s 00000000 00:1a 4711                       /dev/shm/a name\\012with more (deleted)',
    '7f0002000000-7f0002001000 rw-s 00000000 fd:10 12',
    '7ffd4c9e0000-7ffd4ca01000 rw-p 00000000 00:00 0                          [stack]',
    '7f0002000000-7f0002001000 rw-s nonsense',
  ].join('\n')
  expect([...mappedFiles(maps)]).toEqual(['8:2:1835048', '0:26:4711', '253:16:12'])
})

test('whatever maps hold, it ends', () => {
  const columns = fc.array(fc.oneof(fc.string(), fc.constantFrom('0:1a', '4711', 'rw-s', ' ', '-')))
  const lines = fc.array(columns.map((parts) => parts.join(' ')))
  fc.assert(
    fc.property(lines, (maps) => {
      for (const file of mappedFiles(maps.join('\n'))) expect(file).toMatch(/^\d+:\d+:[1-9]\d*$/)
    }),
    { numRuns: 500 },
  )
})
