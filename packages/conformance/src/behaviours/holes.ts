import { ADDRESS_LIMIT, PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expectBadAddress, expectBytes, expectEqual, hex } from '../expect.ts'
import { longest } from './known-memory.ts'

/** Reading what is not there. */
export const holes = behaviours('memory: holes', (define) => {
  define('the end of RAM', ['memory.read'], (trial) => {
    const { memory } = trial.vm
    const end = trial.memory('end')
    memory.read(end - 16, new Uint8Array(16))
    for (const before of [1, 8, 4095, 5000]) {
      const what = `read() of ${before} bytes before the end of RAM and 16 behind it`
      expectBadAddress(end, what, () => memory.read(end - before, new Uint8Array(before + 16)))
    }
    expectBadAddress(end, 'read() just behind the end of RAM', () => memory.read(end, new Uint8Array(1)))
    expectBadAddress(end, 'readUint64() across the end of RAM', () => memory.readUint64(end - 4))
    expectEqual(memory.tryRead(end - 8, new Uint8Array(16)), false, 'tryRead() across the end of RAM')
  })

  define('a hole', ['memory.read'], (trial) => {
    const { memory } = trial.vm
    const { start, length } = trial.memory('hole')
    for (const address of [start, start + 1, start + Math.floor(length / 2), start + length - 1]) {
      expectBadAddress(address, `read() in the hole at ${hex(address)}`, () => memory.read(address, new Uint8Array(1)))
      expectEqual(memory.tryRead(address, new Uint8Array(1)), false, `tryRead() in the hole at ${hex(address)}`)
    }
    expectBadAddress(start, 'read() of a page in the hole', () => memory.read(start, new Uint8Array(PAGE_SIZE)))
    if (!memory.tryRead(start + length, new Uint8Array(1))) return
    const beyond = start + length - 8
    expectBadAddress(beyond, 'read() from the hole into RAM', () => memory.read(beyond, new Uint8Array(64)))
  })

  define('addresses with high bits set', ['memory.read'], (trial) => {
    const { memory } = trial.vm
    const { address, bytes } = longest(trial)
    const into = new Uint8Array(16)
    for (const bit of [40, 44, 47, 51]) {
      const far = address + 2 ** bit
      expectBadAddress(far, `read() at ${hex(far)}, which is nowhere`, () => memory.read(far, into))
      expectEqual(memory.tryRead(far, into), false, `tryRead() at ${hex(far)}`)
    }
    const last = ADDRESS_LIMIT - 16
    expectBadAddress(last, 'read() of the last 16 addresses', () => memory.read(last, into))
    memory.read(address, into)
    expectBytes(into, bytes.subarray(0, 16), address, 'read() after reads that failed')
  })
})
