import fc from 'fast-check'
import { expect, test } from 'vitest'
import { payloadOf } from './repacked-kernel.ts'

function kernelWith(setupSectors: number, offset: number, length: number, size: number): Buffer {
  const kernel = Buffer.alloc(Math.max(size, 0x250))
  kernel[0x1f1] = setupSectors
  kernel.write('HdrS', 0x202, 'latin1')
  kernel.writeUInt32LE(offset, 0x248)
  kernel.writeUInt32LE(length, 0x24c)
  return kernel
}

test('the payload lies behind the setup code', () => {
  expect(payloadOf(kernelWith(3, 100, 50, 4096))).toEqual({ start: 4 * 512 + 100, length: 50 })
})

test('a payload is in its file, or refused', () => {
  const uint32 = fc.nat({ max: 2 ** 32 - 1 })
  fc.assert(
    fc.property(fc.nat({ max: 255 }), uint32, uint32, fc.nat({ max: 4096 }), (sectors, offset, length, size) => {
      const kernel = kernelWith(sectors, offset, length, size)
      try {
        const payload = payloadOf(kernel)
        expect(payload.start + payload.length).toBeLessThanOrEqual(kernel.length)
      } catch (error) {
        expect(String(error)).toContain('payload')
      }
    }),
  )
})

test('what is no kernel is refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 0x300 }), (bytes) => {
      expect(() => payloadOf(Buffer.from(bytes))).toThrow('bzImage')
    }),
  )
})
