import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseHostAddress, parseMaps } from './host-address.ts'

test('the answer to gpa2hva', () => {
  expect(parseHostAddress('Host virtual address for 0x0 (ram) is 0x7f56affff000\r\n')).toBe(0x7f56affff000)
  for (const text of [
    '',
    'Memory at address 0xb0000000 is not RAM\r\n',
    'No memory is mapped at address 0x200000000\r\n',
    'Host virtual address for 0x0 (ram) is 0x0\r\n',
    'Host virtual address for 0x0 (ram) is 0xffffffffffffffff\r\n',
  ]) {
    expect(() => parseHostAddress(text)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  }
})

test('the mappings of a process', () => {
  const maps = `7f56a0000000-7f56b0000000 rw-s 00000000 00:1a 42                         /dev/shm/vm ram
7f56b0000000-7f56b0001000 r--p 00001000 fd:00 1234567890 /usr/lib/x.so
7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]
7f56c0000000-7f56d0000000 rw-s 10000000 00:01 2049 /memfd:memory-backend-memfd (deleted)
`
  expect(parseMaps(maps)).toMatchObject([
    { start: 0x7f56a0000000, end: 0x7f56b0000000, shared: true, offset: 0, inode: 42, path: '/dev/shm/vm ram' },
    { shared: false, offset: 0x1000, device: 'fd:00', inode: 1234567890 },
    { inode: 0, path: '[stack]' },
    { shared: true, offset: 2 ** 28, path: '/memfd:memory-backend-memfd (deleted)' },
  ])
  fc.assert(fc.property(fc.string(), (text) => Array.isArray(parseMaps(text))))
})
