import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PhysicalMemory } from './physical-memory.ts'

const MIB = 2 ** 20

test('the ranges of a PC', () => {
  expect(new PhysicalMemory(16 * MIB, 4 * MIB).ranges).toEqual([
    { start: 0, length: 0xa_0000, kind: 'ram' },
    { start: 0xf_0000, length: 0x1_0000, kind: 'rom' },
    { start: MIB, length: 11 * MIB, kind: 'ram' },
    { start: 2 ** 32, length: 4 * MIB, kind: 'ram' },
  ])
})

test('reads and writes are whole, or tell the first byte that is not there', () => {
  const memory = new PhysicalMemory(8 * MIB, 2 * MIB)
  const isThere = (address: number) =>
    memory.ranges.some(({ start, length }) => address >= start && address < start + length)
  const near = fc.constantFrom(0, 0xa_0000, 0xf_0000, MIB, 6 * MIB, 2 ** 32, 2 ** 32 + 2 * MIB)
  fc.assert(
    fc.property(
      near,
      fc.integer({ min: -40, max: 40 }),
      fc.uint8Array({ minLength: 1, maxLength: 60 }),
      (at, by, bytes) => {
        const address = Math.max(0, at + by)
        let there = 0
        while (there < bytes.length && isThere(address + there)) there += 1
        const into = new Uint8Array(bytes.length)
        const before = memory.read(address, into)
        expect(before).toBe(there)
        expect(memory.write(address, bytes)).toBe(there)
        const after = new Uint8Array(bytes.length)
        memory.read(address, after)
        expect(after.subarray(0, there)).toEqual(there === bytes.length ? bytes : into.subarray(0, there))
      },
    ),
  )
})

test('pages are the same memory', () => {
  const memory = new PhysicalMemory(8 * MIB, 2 * MIB)
  const frame = (2 ** 32 + 0x5000) / 4096
  memory.page(frame)?.view.setUint8(7, 99)
  const into = new Uint8Array(1)
  expect(memory.read(frame * 4096 + 7, into)).toBe(1)
  expect(into[0]).toBe(99)
  expect(memory.page(0xa0)).toBeUndefined()
  expect(memory.page(0xf0)?.writable).toBe(false)
})

test('windows are within one range', () => {
  const memory = new PhysicalMemory(8 * MIB, 2 * MIB)
  const window = memory.window(0xf_fff0, 16)
  if (typeof window === 'number') throw new Error('no window')
  window[0] = 5
  expect(memory.page(0xff)?.view.getUint8(0xff0)).toBe(5)
  // The ROM and the RAM behind it are two ranges.
  expect(memory.window(0xf_fff0, 17)).toBe(16)
  expect(memory.window(0xa_0000, 1)).toBe(0)
})

test('pages are added behind all RAM and taken away again', () => {
  const memory = new PhysicalMemory(8 * MIB, 2 * MIB)
  const { generation, ranges } = memory
  const added = [memory.add(), memory.add(), memory.add()]
  expect(new Set(added).size).toBe(3)
  expect(Math.min(...added)).toBeGreaterThan(2 ** 32 + 2 * MIB)
  expect(memory.ranges).toEqual([...ranges, ...added.map((start) => ({ start, length: 4096, kind: 'ram' }))])
  expect(memory.generation).not.toBe(generation)
  for (const address of added) {
    expect(memory.write(address, new Uint8Array(4096).fill(1))).toBe(4096)
    expect(memory.remove(address)).toBe(true)
    expect(memory.remove(address)).toBe(false)
    expect(memory.read(address, new Uint8Array(1))).toBe(0)
  }
  expect(memory.ranges).toEqual(ranges)
  // A page that comes again is zeroed.
  const again = new Uint8Array(4096)
  memory.read(memory.add(), again)
  expect(again.every((byte) => byte === 0)).toBe(true)
})
