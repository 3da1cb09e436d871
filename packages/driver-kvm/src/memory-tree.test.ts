import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseMemoryTree } from './memory-tree.ts'

/** What QEMU 7.2 prints for q35 with 3 GiB (shortened). */
const Q35 = `FlatView #0
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-000000007fffffff (prio 0, ram): ram

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000cafff (prio 0, rom): ram @00000000000c0000
  00000000000cb000-00000000000cdfff (prio 1000, ram): ram @00000000000cb000
  0000000000100000-000000007fffffff (prio 0, ram): ram @0000000000100000
  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio
  00000000fed00000-00000000fed003ff (prio 0, i/o): hpet
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-000000013fffffff (prio 0, ram): ram @0000000080000000

FlatView #2
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

`

test('the RAM and ROM of the address space "memory", with their places in RAM blocks', () => {
  const ranges = parseMemoryTree(Q35)
  expect(ranges).toHaveLength(6)
  expect(ranges[0]).toEqual({ start: 0, length: 0xa0000, kind: 'ram', block: 'ram', blockOffset: 0 })
  expect(ranges[4]).toMatchObject({ start: 0xfffc0000, length: 0x40000, kind: 'rom', block: 'pc.bios', blockOffset: 0 })
  expect(ranges[5]).toMatchObject({ start: 2 ** 32, length: 2 ** 30, blockOffset: 2 ** 31 })
})

test('carriage returns, marks of KVM, blocks of memory backends', () => {
  const text = Q35.replaceAll('\n', '\r\n').replace('ram @0000000080000000', '/objects/my ram @0000000080000000 KVM')
  expect(parseMemoryTree(text).at(-1)).toMatchObject({ block: '/objects/my ram', blockOffset: 2 ** 31 })
  expect(parseMemoryTree(Q35.replace('pc.bios', 'pc.bios KVM'))[4]).toMatchObject({ block: 'pc.bios' })
})

test.each([
  ['nothing', ''],
  ['no flat view', 'memory-region: system\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n'],
  ['no address space "memory"', Q35.replace('AS "memory"', 'AS "other"')],
  ['ranges that overlap', Q35.replace('0000000000100000-', '0000000000080000-')],
  [
    'a range that ends before it begins',
    Q35.replace('-000000000009ffff', '-0000000000000000').replace(
      '0000000000000000-0000000000000000',
      '0000000000001000-0000000000000000',
    ),
  ],
  ['a range beyond 52 bits', Q35.replace('000000013fffffff', 'ffffffffffffffff')],
])('%s is no memory map', (_, text) => {
  expect(() => parseMemoryTree(text)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
})

test('whatever the text, ranges are disjoint and ascending, or there is a PROTOCOL error', () => {
  const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => value.toString(16).padStart(16, '0'))
  const small = fc.integer({ min: 0, max: 2 ** 22 }).map((value) => value.toString(16).padStart(16, '0'))
  const address = fc.oneof(word, small)
  const line = fc
    .tuple(address, address, fc.constantFrom('ram', 'rom', 'i/o'), fc.string())
    .map(([first, last, kind, name]) => `  ${first}-${last} (prio 0, ${kind}): ${name}`)
  const text = fc
    .array(fc.oneof(line, fc.string()))
    .map((lines) => `FlatView #0\n AS "memory", root: system\n${lines.join('\n')}`)
  fc.assert(
    fc.property(text, (text) => {
      let end = 0
      try {
        for (const { start, length } of parseMemoryTree(text)) {
          expect(start).toBeGreaterThanOrEqual(end)
          expect(length).toBeGreaterThan(0)
          end = start + length
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
    { numRuns: 500 },
  )
})
