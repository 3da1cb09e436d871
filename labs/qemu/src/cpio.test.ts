import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type CpioEntry, cpio, directoriesOf } from './cpio.ts'
import { initramfs } from './initramfs.ts'

interface Entry {
  readonly name: string
  readonly mode: number
  readonly device: readonly number[]
  readonly data: Buffer
}

/** Reads the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). */
function entriesOf(archive: Buffer): Entry[] {
  const entries: Entry[] = []
  const aligned = (offset: number) => (offset + 3) & ~3
  for (let at = 0; at < archive.length; ) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701')
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16)
    const nameEnd = at + 110 + field(11)
    expect(archive[nameEnd - 1]).toBe(0)
    const start = aligned(nameEnd)
    const data = archive.subarray(start, start + field(6))
    entries.push({
      name: archive.toString('latin1', at + 110, nameEnd - 1),
      mode: field(1),
      device: [field(9), field(10)],
      data,
    })
    at = aligned(start + data.length)
  }
  return entries
}

test('holds the program whole, with a console', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5000 }), (program) => {
      const entries = entriesOf(initramfs(program))
      expect(entries.at(-1)?.name).toBe('TRAILER!!!')
      expect(entries.slice(0, -1).map(({ name, mode }) => [name, mode])).toEqual([
        ['dev', 0o040755],
        ['dev/console', 0o020600],
        ['init', 0o100755],
      ])
      expect(entries[1]?.device).toEqual([5, 1])
      expect(entries[2]?.data).toEqual(Buffer.from(program))
    }),
  )
})

test('any files come out as they went in, and each time the same', () => {
  const name = fc.stringMatching(/^[a-z]{1,9}$/)
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'))
  const file = fc.record({ path, type: fc.constantFrom('file', 'executable', 'link'), data: fc.uint8Array() })
  fc.assert(
    fc.property(fc.array(file, { maxLength: 5 }), (files: CpioEntry[]) => {
      const archive = cpio(files)
      expect(cpio(files)).toEqual(archive)
      expect(
        entriesOf(archive)
          .slice(0, -1)
          .map(({ name, data }) => ({ name, data })),
      ).toEqual(files.map(({ path: at, data = '' }) => ({ name: at, data: Buffer.from(data) })))
    }),
  )
})

test('the directories above paths, each before what is in it', () => {
  expect(directoriesOf(['a/b/c', 'a/b/d', 'e', 'a/f/g']).map(({ path }) => path)).toEqual(['a', 'a/b', 'a/f'])
})
