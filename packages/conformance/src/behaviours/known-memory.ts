import { PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBytes, expectEqual, hex } from '../expect.ts'
import type { KnownMemory } from '../fixture.ts'
import type { Trial } from '../trial.ts'

type Known = KnownMemory['known'][number]

/** Lengths that processors, page tables and copy loops treat in ways of their own. */
const LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 511]

/** Over what protocols take at once: FDP's 10 MiB is the least known. */
const LONG = 12 * 2 ** 20

/** Reading what is there. */
export const knownMemory = behaviours('memory: reads', (define) => {
  define('known memory reads as it is', ['memory.read'], (trial) => {
    for (const { address, bytes } of trial.memory('known')) {
      const into = new Uint8Array(bytes.length)
      trial.vm.memory.read(address, into)
      expectBytes(into, bytes, address, 'read()')
      into.fill(0)
      expectEqual(trial.vm.memory.tryRead(address, into), true, `tryRead() at ${hex(address)}`)
      expectBytes(into, bytes, address, 'tryRead()')
    }
  })

  define('any alignment and length', ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    for (const [offset, length] of LENGTHS.entries()) {
      const expected = bytes.subarray(offset, offset + length)
      const into = new Uint8Array(expected.length)
      trial.vm.memory.read(address + offset, into)
      expectBytes(into, expected, address + offset, `a read of ${expected.length} bytes`)
    }
  })

  define("fills the caller's bytes and no others", ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    const margin = 32
    const expected = bytes.subarray(3, 3 + 24)
    const whole = new Uint8Array(margin + expected.length + margin).fill(0xa5)
    const untouched = whole.slice(0, margin)
    trial.vm.memory.read(address + 3, whole.subarray(margin, margin + expected.length))
    expectBytes(whole.subarray(margin, -margin), expected, address + 3, 'a read into the middle of a buffer')
    expectBytes(whole.subarray(0, margin), untouched, 0, "what lies before the caller's bytes")
    expectBytes(whole.subarray(-margin), untouched, 0, "what lies behind the caller's bytes")
  })

  define("across a page's edge", ['memory.read'], (trial) => {
    const { address, bytes, edge } = acrossEdge(trial)
    for (const before of [1, 3, 4, 7, 8]) {
      for (const length of [before + 1, before + 4, before + 8]) {
        const at = edge - before - address
        const expected = bytes.subarray(at, at + length)
        if (at < 0 || expected.length < length) continue
        const into = new Uint8Array(length)
        trial.vm.memory.read(address + at, into)
        expectBytes(into, expected, address + at, `${length} bytes across the edge at ${hex(edge)}`)
        if (length < 8) continue
        const word = new DataView(expected.buffer, expected.byteOffset).getBigUint64(0, true)
        expectEqual(trial.vm.memory.readUint64(address + at), word, `readUint64(${hex(address + at)}) across the edge`)
      }
    }
  })

  define('whole numbers, little endian', ['memory.read'], (trial) => {
    const { address, bytes } = longest(trial)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let offset = 0; offset < Math.min(24, bytes.length - 8); offset++) {
      const at = address + offset
      expectEqual(trial.vm.memory.readUint8(at), view.getUint8(offset), `readUint8(${hex(at)})`)
      expectEqual(trial.vm.memory.readUint16(at), view.getUint16(offset, true), `readUint16(${hex(at)})`)
      expectEqual(trial.vm.memory.readUint32(at), view.getUint32(offset, true), `readUint32(${hex(at)})`)
      expectEqual(trial.vm.memory.readUint64(at), view.getBigUint64(offset, true), `readUint64(${hex(at)})`)
    }
  })

  define('a long read equals its parts', ['memory.read', 'memory.regions'], (trial) => {
    const most = Math.ceil(LONG / Math.max(1, trial.pace.slowness))
    const ranges = [...trial.vm.memory.regions().ranges].sort((a, b) => b.length - a.length)
    const [range] = ranges
    expect(range !== undefined, 'regions() has no range at all')
    if (!trial.still()) trial.skip('memory may change between two reads: the guest cannot be paused')
    const length = Math.min(most, range.length)
    const whole = new Uint8Array(length)
    trial.vm.memory.read(range.start, whole)
    const part = new Uint8Array(PAGE_SIZE)
    const step = Math.max(PAGE_SIZE, Math.floor(length / 64 / PAGE_SIZE) * PAGE_SIZE)
    for (let offset = 0; offset + PAGE_SIZE <= length; offset += step) {
      trial.vm.memory.read(range.start + offset, part)
      expectBytes(whole.subarray(offset, offset + PAGE_SIZE), part, range.start + offset, `a read of ${length} bytes`)
    }
  })
})

/** The longest piece of memory that the fixture knows. */
export function longest(trial: Trial<never>): Known {
  const [first, ...others] = trial.memory('known')
  if (!first) trial.skip('the fixture knows no memory (Guest.memory.known is empty)')
  const found = others.reduce((best, piece) => (piece.bytes.length > best.bytes.length ? piece : best), first)
  if (found.bytes.length < PAGE_SIZE) trial.skip('the fixture knows no whole page (Guest.memory.known)')
  return found
}

/** Bytes that go across a page's edge, and where the edge is. Pauses the guest where they are not known beforehand. */
export function acrossEdge(trial: Trial<'memory.read'>): Known & { readonly edge: number } {
  const known = trial.memory('known')
  for (const { address, bytes } of known) {
    const edge = Math.floor(address / PAGE_SIZE + 1) * PAGE_SIZE
    if (edge < address + bytes.length) return { address, bytes, edge }
  }
  // What lies on either side of an edge, each read by itself.
  const isStill = trial.still()
  for (const { address, bytes } of known) {
    const edge = address + bytes.length
    const both = new Uint8Array(bytes.length + PAGE_SIZE)
    if (!isStill || edge % PAGE_SIZE !== 0 || !trial.vm.memory.tryRead(edge, both.subarray(bytes.length))) continue
    both.set(bytes)
    return { address, bytes: both, edge }
  }
  return trial.skip("no piece that the fixture knows goes across a page's edge, or to one (Guest.memory.known)")
}
