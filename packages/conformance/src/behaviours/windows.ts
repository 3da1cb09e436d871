import { PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBadAddress, expectBytes, expectEqual } from '../expect.ts'
import { acrossEdge, longest } from './known-memory.ts'
import { pattern, scratch } from './writes.ts'

/** More windows than anybody has open at once. */
const MANY = 300

/** `map`. */
export const windows = behaviours('memory: windows', (define) => {
  define('a window shows what is read', ['memory.map', 'memory.read'], (trial) => {
    const { memory } = trial.vm
    for (const { address, bytes } of [longest(trial), acrossEdge(trial)]) {
      for (const [offset, length] of [
        [0, bytes.length],
        [1, 1],
        [13, Math.min(1000, bytes.length - 13)],
      ] as const) {
        const shown = memory.map(address + offset, length, (window) => window.slice())
        expectBytes(shown, bytes.subarray(offset, offset + length), address + offset, `a window of ${length} bytes`)
      }
    }
  })

  define('a write to a window changes the guest', ['memory.map', 'memory.read', 'memory.write'], (trial) => {
    const { address } = scratch(trial)
    const { memory } = trial.vm
    const bytes = pattern(300, 8)
    memory.map(address + 5, 300, (window) => window.set(bytes))
    const into = new Uint8Array(300)
    memory.read(address + 5, into)
    expectBytes(into, bytes, address + 5, 'what was written to a window')
    memory.write(address + 5, pattern(300, 9))
    memory.map(address + 5, 300, (window) => {
      expectBytes(window, pattern(300, 9), address + 5, 'a window onto what was written')
    })
  })

  define('none onto what is not memory', ['memory.map'], (trial) => {
    const { memory } = trial.vm
    const end = trial.memory('end')
    const nobody = () => expect(false, 'the function of a map() that must fail is called')
    expectBadAddress(end, 'map() behind the end of RAM', () => memory.map(end, PAGE_SIZE, nobody))
    expectBadAddress(end, 'map() across the end of RAM', () => memory.map(end - 8, 16, nobody))
    const hole = trial.guest.memory?.hole
    if (hole) expectBadAddress(hole.start, 'map() in a hole', () => memory.map(hole.start, PAGE_SIZE, nobody))
    memory.map(end - PAGE_SIZE, PAGE_SIZE, (window) => expectEqual(window.length, PAGE_SIZE, 'the length of a window'))
  })

  define('windows are let go of, also when their function throws', ['memory.map', 'memory.read'], (trial) => {
    const { memory } = trial.vm
    const { address, bytes } = longest(trial)
    const mine = new Error('thrown in the function of map()')
    let caught: unknown
    try {
      memory.map(address, 16, () => {
        throw mine
      })
    } catch (error) {
      caught = error
    }
    expectEqual(caught, mine, 'what map() throws when its function does')
    for (let times = 0; times < MANY; times++) {
      const first = memory.map(address + (times % 16), 64, (window) => window[0])
      expectEqual(first, bytes[times % 16], `the first byte of window ${times}`)
    }
  })
})
