import { expect, test } from 'vitest'
import { explain } from './apt-complaint.ts'

test.each([
  ['E: Unable to locate package nonesuch', 'nonesuch'],
  ["E: Unable to locate package libfoo1.2\nE: Couldn't find any package by glob 'libfoo1.2'", 'libfoo1.2'],
  ["E: Package 'virtual' has no installation candidate", 'virtual'],
  ["E: Version '9' for 'qemu-system-x86' was not found", 'qemu-system-x86'],
  ["E: Release 'sid' for 'qemu-system-x86' was not found", 'qemu-system-x86'],
  ['E: Unable to find a source package for nonesuch', 'nonesuch'],
  [' foo : Depends: bar (>= 2) but it is not installable', 'bar'],
  [' foo : Depends: bar (= 2) but 1 is to be installed', 'bar'],
])('%s', (said, name) => {
  expect(explain('apt-get download', ['one', 'two'], 'sid', said)).toMatch(
    `needs the Debian package ${name}: apt-get download (sid) failed: `,
  )
})

test('names what was asked for where apt names nothing', () => {
  expect(explain('apt-cache depends', ['meta'], 'host', 'E: No packages found')).toMatch(
    'needs the Debian package meta: ',
  )
  expect(explain('apt-get download', ['a', 'b'], 'host', 'E: disk full')).toMatch(/failed: E: disk full\n.*a b\.$/)
  expect(explain('apt-get update', [], 'host', 'E: no network')).toBe('apt-get update (host) failed: E: no network')
})
