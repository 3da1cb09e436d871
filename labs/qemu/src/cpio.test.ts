import fc from 'fast-check'
import { expect, test } from 'vitest'
import { cpio, directoriesOf } from './cpio.ts'

/** Reads an archive by the format's description alone. */
function entriesIn(archive: Buffer): { path: string; mode: number; data: string }[] {
  const found: { path: string; mode: number; data: string }[] = []
  for (let at = 0; ; ) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701')
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16)
    const path = archive.toString('utf8', at + 110, at + 110 + field(11) - 1)
    const data = (at + 110 + field(11) + 3) & ~3
    if (path === 'TRAILER!!!') return found
    found.push({ path, mode: field(1), data: archive.toString('hex', data, data + field(6)) })
    at = (data + field(6) + 3) & ~3
  }
}

test('what goes in is read out, wherever it ends', () => {
  const name = fc.stringMatching(/^[a-zé]{1,9}$/)
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(name, fc.uint8Array()), { selector: ([path]) => path }), (files) => {
      const archive = cpio(files.map(([path, data]) => ({ path, type: 'file', data })))
      expect(archive.length % 4).toBe(0)
      expect(entriesIn(archive)).toEqual(
        files.map(([path, data]) => ({ path, mode: 0o100644, data: Buffer.from(data).toString('hex') })),
      )
    }),
  )
})

test('links point, programs are executable', () => {
  const archive = cpio([
    { path: 'bin', type: 'directory' },
    { path: 'bin/sh', type: 'link', data: 'busybox' },
    { path: 'bin/busybox', type: 'executable', data: 'x' },
  ])
  expect(entriesIn(archive).map(({ mode }) => mode)).toEqual([0o040755, 0o120777, 0o100755])
})

test('directories come before what is in them, each once', () => {
  expect(directoriesOf(['a/b/c', 'a/d', 'e', 'a/b/f']).map(({ path }) => path)).toEqual(['a', 'a/b'])
})
