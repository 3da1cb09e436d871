import { expect, test } from 'vitest'
import { Patches } from './patches.ts'

function patched(): Patches {
  const patches = new Patches()
  patches.add(0x1002, 0x55, 0xcc)
  return patches
}

test('hides the patched byte in what was read, wherever the read begins', () => {
  const patches = patched()
  const whole = Uint8Array.of(1, 2, 0xcc, 4)
  patches.hide(0x1000, whole)
  expect([...whole]).toEqual([1, 2, 0x55, 4])
  const last = Uint8Array.of(2, 0xcc)
  patches.hide(0x1001, last)
  expect([...last]).toEqual([2, 0x55])
  const beside = Uint8Array.of(0xcc)
  patches.hide(0x1003, beside)
  expect([...beside]).toEqual([0xcc])
})

test('shows what the guest has written over a patch', () => {
  const patches = patched()
  const written = Uint8Array.of(0x77)
  patches.hide(0x1002, written)
  expect([...written]).toEqual([0x77])
})

test('touches is about the bytes of the range, not more', () => {
  const patches = patched()
  expect(patches.touches(0x1000, 2)).toBe(false)
  expect(patches.touches(0x1000, 3)).toBe(true)
  expect(patches.touches(0x1003, 100)).toBe(false)
})

test('a write over a patch keeps the patch and changes what will be put back, once it succeeded', () => {
  const patches = patched()
  const preserved = patches.preserve(0x1001, Uint8Array.of(7, 8, 9))
  expect([...preserved.bytes]).toEqual([7, 0xcc, 9])
  expect(patches.original(0x1002)).toBe(0x55)
  preserved.commit()
  expect(patches.original(0x1002)).toBe(8)
  patches.remove(0x1002)
  expect(patches.size).toBe(0)
})
