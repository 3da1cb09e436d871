import { PAGE_SIZE, type ScatteredRead } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBytes, expectEqual, hex } from '../expect.ts'
import { longest } from './known-memory.ts'

/** More than systems take in one call: IOV_MAX is 1,024 (limits.h of Linux). */
const MANY = 1500

/** `readMany`. */
export const scatteredReads = behaviours('memory: scattered reads', (define) => {
  define('all known memory in one go', ['memory.read'], (trial) => {
    const known = trial.memory('known')
    const reads = known.map(({ address, bytes }) => ({ address, into: new Uint8Array(bytes.length) }))
    expectEqual(trial.vm.memory.readMany(reads).length, 0, 'the number of failures of readMany()')
    for (const [index, { address, into }] of reads.entries()) {
      expectBytes(into, known[index]?.bytes ?? into, address, `read ${index} of readMany()`)
    }
  })

  define('failed ones among good ones', ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    const end = trial.memory('end')
    const good = (offset: number, length: number) => ({ address: address + offset, into: new Uint8Array(length) })
    const reads: ScatteredRead[] = [
      good(0, 16),
      { address: end, into: new Uint8Array(4) },
      good(5, 33),
      { address: end - 3, into: new Uint8Array(8) },
      good(0, 16),
      { address: end + PAGE_SIZE, into: new Uint8Array(PAGE_SIZE) },
      good(64, 1),
    ]
    const failures = trial.vm.memory.readMany(reads)
    const told = [...failures]
      .sort((a, b) => a.index - b.index)
      .map((failure) => `${failure.index} ${hex(failure.address)}`)
    const expected = [`1 ${hex(end)}`, `3 ${hex(end)}`, `5 ${hex(end + PAGE_SIZE)}`]
    expectEqual(told.join(', '), expected.join(', '), 'the list of failed reads (index, first address)')
    for (const index of [0, 2, 4, 6]) {
      const read = reads[index]
      expect(read !== undefined, 'the case is wrong')
      const offset = read.address - address
      const part = bytes.subarray(offset, offset + read.into.length)
      expectBytes(read.into, part, read.address, `read ${index} of readMany(), beside failed ones`)
    }
  })

  define('none, and empty ones', ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    const { memory } = trial.vm
    expectEqual(memory.readMany([]).length, 0, 'the number of failures of readMany([])')
    memory.read(address, new Uint8Array(0))
    const into = new Uint8Array(8)
    const reads = [
      { address, into: new Uint8Array(0) },
      { address: address + 1, into },
      { address, into: new Uint8Array(0) },
    ]
    expectEqual(memory.readMany(reads).length, 0, 'the number of failures of readMany() with empty reads')
    expectBytes(into, bytes.subarray(1, 9), address + 1, 'the read between empty ones')
  })

  define('more reads than a system takes at once', ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    const count = Math.ceil(MANY / Math.max(1, trial.pace.slowness))
    const length = 24
    const offsetOf = (index: number) => (index * 41) % (bytes.length - length)
    const reads = Array.from({ length: count }, (_, index) => ({
      address: address + offsetOf(index),
      into: new Uint8Array(length),
    }))
    expectEqual(trial.vm.memory.readMany(reads).length, 0, `the number of failures among ${count} reads`)
    for (const [index, { address: at, into }] of reads.entries()) {
      const offset = offsetOf(index)
      expectBytes(into, bytes.subarray(offset, offset + length), at, `read ${index} of ${count}`)
    }
  })
})
