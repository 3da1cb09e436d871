import fc from 'fast-check'
import { expect, test } from 'vitest'
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
      expect(entries.map(({ name, mode }) => [name, mode])).toEqual([
        ['dev', 0o040755],
        ['dev/console', 0o020600],
        ['init', 0o100755],
        ['TRAILER!!!', 0],
      ])
      expect(entries[1]?.device).toEqual([5, 1])
      expect(entries[2]?.data).toEqual(Buffer.from(program))
    }),
  )
})

test('is the same each time', () => {
  const program = Buffer.from('program')
  expect(initramfs(program)).toEqual(initramfs(program))
})
