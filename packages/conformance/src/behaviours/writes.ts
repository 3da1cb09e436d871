import { PAGE_SIZE, type Vm } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expectBadAddress, expectBytes } from '../expect.ts'
import type { Trial } from '../trial.ts'

type Writable = 'memory.read' | 'memory.write'

/** Writing, on memory that the guest does not use. */
export const writes = behaviours('memory: writes', (define) => {
  define('what is written reads back, at any alignment and length', ['memory.read', 'memory.write'], (trial) => {
    const { address } = scratch(trial)
    const { memory } = trial.vm
    for (const [offset, length] of [1, 2, 3, 4, 7, 8, 9, 16, 33, 100, 512].entries()) {
      const bytes = pattern(length, offset)
      memory.write(address + offset, bytes)
      expectBytes(readBack(trial.vm, address + offset, length), bytes, address + offset, 'what was written')
    }
  })

  define('a write changes its bytes and no others', ['memory.read', 'memory.write'], (trial) => {
    const { address } = scratch(trial)
    const { memory } = trial.vm
    const around = pattern(64, 1)
    for (const [offset, length] of [
      [3, 1],
      [9, 2],
      [17, 4],
      [30, 8],
      [41, 5],
    ] as const) {
      memory.write(address, around)
      const bytes = pattern(length, 99)
      memory.write(address + offset, bytes)
      const expected = around.slice()
      expected.set(bytes, offset)
      expectBytes(readBack(trial.vm, address, 64), expected, address, `memory around a write of ${length} bytes`)
    }
  })

  define("across a page's edge", ['memory.read', 'memory.write'], (trial) => {
    const { address, length } = scratch(trial)
    if (length < 2 * PAGE_SIZE) trial.skip('the scratch area of the fixture has less than two pages')
    for (const before of [1, 4, 7, 100]) {
      const at = address + PAGE_SIZE - before
      const bytes = pattern(before + 100, before)
      trial.vm.memory.write(at, bytes)
      expectBytes(readBack(trial.vm, at, bytes.length), bytes, at, `a write of ${before} bytes before a page's edge`)
    }
  })

  define('whole numbers, little endian', ['memory.read', 'memory.write'], (trial) => {
    const { address } = scratch(trial)
    const { memory } = trial.vm
    memory.write(address, new Uint8Array(32))
    memory.writeUint8(address + 1, 0xfe)
    memory.writeUint16(address + 3, 0xfedc)
    memory.writeUint32(address + 7, 0xfedc_ba98)
    memory.writeUint64(address + 13, 0xfedc_ba98_7654_3210n)
    const expected = new Uint8Array(32)
    const view = new DataView(expected.buffer)
    view.setUint8(1, 0xfe)
    view.setUint16(3, 0xfedc, true)
    view.setUint32(7, 0xfedc_ba98, true)
    view.setBigUint64(13, 0xfedc_ba98_7654_3210n, true)
    expectBytes(readBack(trial.vm, address, 32), expected, address, 'whole numbers that were written')
  })

  define('a write that touches what is not memory writes nothing', ['memory.read', 'memory.write'], (trial) => {
    const { memory } = trial.vm
    const end = trial.memory('end')
    trial.still()
    const last = readBack(trial.vm, end - 16, 16)
    trial.afterwards(() => memory.write(end - 16, last))
    const across = Uint8Array.from({ length: 32 }, (_, index) => (last[index] ?? 0) ^ 0xff)
    expectBadAddress(end, 'write() across the end of RAM', () => memory.write(end - 16, across))
    expectBytes(readBack(trial.vm, end - 16, 16), last, end - 16, 'the end of RAM after a write that failed')
    expectBadAddress(end, 'write() behind the end of RAM', () => memory.write(end, across))
    expectBadAddress(end, 'writeUint64() across the end of RAM', () => memory.writeUint64(end - 4, 0n))
    expectBytes(readBack(trial.vm, end - 16, 16), last, end - 16, 'the end of RAM after writes that failed')
  })

  define(
    'what was written is still there for the next session',
    ['memory.read', 'memory.write'],
    async (trial) => {
      const { address, length } = area(trial)
      const before = readBack(trial.vm, address, length)
      const bytes = pattern(256, 5)
      trial.vm.memory.write(address + 7, bytes)
      await trial.vm.close()
      const next = await trial.open()
      trial.afterwards(() => next.memory.write(address, before))
      expectBytes(readBack(next, address + 7, 256), bytes, address + 7, 'what the session before has written')
    },
    { session: 'own' },
  )
})

/** The area that may be written. It is put back after the case. */
export function scratch(trial: Trial<Writable>): { readonly address: number; readonly length: number } {
  const { address, length } = area(trial)
  const before = readBack(trial.vm, address, length)
  trial.afterwards(() => trial.vm.memory.write(address, before))
  return { address, length }
}

function area(trial: Trial<Writable>): { readonly address: number; readonly length: number } {
  const { address, length } = trial.memory('scratch')
  return { address, length: Math.min(length, 2 * PAGE_SIZE) }
}

/** Bytes that tell their places apart, other ones for each seed. */
export function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 13 + seed * 59 + 1) % 253)
}

function readBack(vm: Vm<'memory.read'>, address: number, length: number): Uint8Array {
  const into = new Uint8Array(length)
  vm.memory.read(address, into)
  return into
}
