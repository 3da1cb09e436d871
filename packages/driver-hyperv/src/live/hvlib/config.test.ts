import fc from 'fast-check'
import { expect, test } from 'vitest'
import { HvlibConfig } from './config.ts'

test('the methods are what the library put there, if the header knows them', () => {
  const method = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
  const methods = fc.tuple(method, method, method)
  fc.assert(
    fc.property(fc.oneof(methods, fc.tuple(fc.nat(4), fc.nat(4), fc.nat(4))), ([read, write, suspend]) => {
      const config = new HvlibConfig()
      const view = new DataView(config.bytes.buffer)
      view.setInt32(0, read, true)
      view.setInt32(4, write, true)
      view.setInt32(8, suspend, true)
      expect(config.method('readMethod')).toBe(read >= 1 && read <= 3 ? read : undefined)
      expect(config.method('writeMethod')).toBe(write >= 1 && write <= 3 ? write : undefined)
      expect(config.method('suspendMethod')).toBe(suspend >= 1 && suspend <= 2 ? suspend : undefined)
    }),
  )
})

test('leaving the guest running changes two flags, and there is room for a longer struct', () => {
  const config = new HvlibConfig()
  expect(config.bytes.length).toBeGreaterThanOrEqual(1024)
  config.bytes.fill(0xff)
  config.leaveGuestRunning()
  expect([...config.bytes.entries()].filter(([, byte]) => byte !== 0xff)).toEqual([
    [24, 0],
    [25, 0],
  ])
})
