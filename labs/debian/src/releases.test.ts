import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hostMirror, hostRelease, sourcesList } from './releases.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

const file = (name: string, text: string) => {
  writeFileSync(join(directory, name), text)
  return join(directory, name)
}

test('the lines for several releases, with and without source packages', () => {
  const signed = '[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  expect(sourcesList(['trixie'], 'http://mirror.test/debian', false)).toBe(
    `deb ${signed} http://mirror.test/debian trixie main contrib\n`,
  )
  expect(sourcesList(['a', 'b'], 'http://mirror.test/debian', true).match(/^\S+|\S+(?= main)/gm)).toEqual([
    ...['deb', 'a', 'deb-src', 'a'],
    ...['deb', 'b', 'deb-src', 'b'],
  ])
})

test.each([
  ['a line', 'deb http://mirror.test/debian bookworm main\n', 'http://mirror.test/debian'],
  [
    'a line with options',
    '# x\ndeb [arch=amd64 a=b] http://mirror.test/debian/ sid main\n',
    'http://mirror.test/debian/',
  ],
  ['a paragraph', 'Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\n', 'http://mirror.test/debian'],
])('the mirror in %s', (_, text, mirror) => {
  expect(hostMirror([join(directory, 'is not there'), file('sources', text)])).toBe(mirror)
})

test('the mirror among a directory of files; none is told', () => {
  const parts = join(directory, 'sources.list.d')
  mkdirSync(parts)
  writeFileSync(join(parts, 'a.list'), 'deb http://elsewhere.test/packages stable main\n')
  writeFileSync(join(parts, 'b.list'), 'deb http://mirror.test/debian-security bookworm-security main\n')
  expect(() => hostMirror([parts])).toThrow('needs a Debian mirror')
  writeFileSync(join(parts, 'c.list'), 'deb http://mirror.test/debian bookworm main\n')
  expect(hostMirror([parts])).toBe('http://mirror.test/debian')
})

test('the release that the host runs', () => {
  const text = 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
  expect(hostRelease(file('os-release', text))).toBe('debian bookworm')
  expect(hostRelease(file('quoted', 'ID="debian"\nVERSION_CODENAME="bookworm"\n'))).toBe('debian bookworm')
  expect(hostRelease(join(directory, 'is not there'))).toBe(' ')
})
