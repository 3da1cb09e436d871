import { type MemoryPiece, type MemoryRange, PAGE_SIZE, type PiecesOptions, type Vm } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBytes, expectEqual, hex } from '../expect.ts'
import { longest } from './known-memory.ts'

/** Of each range so much is taken at either end: a whole guest is a dump's affair. */
const SAMPLE = 8 * 2 ** 20

/** `pieces`: what dumps are made of. */
export const pieces = behaviours('memory: pieces', (define) => {
  define('cover the regions, ascending, without gap', ['memory.regions'], async (trial) => {
    const { vm } = trial
    const sample = Math.max(4 * PAGE_SIZE, Math.floor(SAMPLE / Math.max(1, trial.pace.slowness)))
    const { ranges } = vm.memory.regions()
    for (const range of ranges) {
      for (const within of endsOf(range, sample)) {
        const found = await collect(vm, { within, pieceLength: 16 * PAGE_SIZE })
        let next = within.start
        for (const { address, length, bytes } of found) {
          expectEqual(hex(address), hex(next), 'the address of the next piece')
          expect(length > 0 && length <= 16 * PAGE_SIZE, `the piece at ${hex(address)} has ${length} bytes`)
          if (bytes !== undefined) expectEqual(bytes, length, `the length of the bytes of the piece at ${hex(address)}`)
          next = address + length
        }
        expectEqual(hex(next), hex(within.start + within.length), `the end of the pieces of ${hex(within.start)}`)
      }
    }
  })

  define('equal what is read', ['memory.regions', 'memory.read'], async (trial) => {
    const { vm } = trial
    const { address, bytes } = longest(trial)
    const within = { start: address, length: bytes.length }
    const seen = await gather(vm, within)
    expectBytes(seen, bytes, address, 'what the pieces of known memory hold')
    if (!trial.still()) return
    for (const range of vm.memory.regions().ranges) {
      for (const end of endsOf(range, 64 * PAGE_SIZE)) {
        const expected = new Uint8Array(end.length)
        vm.memory.read(end.start, expected)
        expectBytes(await gather(vm, end), expected, end.start, 'what the pieces hold')
      }
    }
  })

  define('only what was asked for', ['memory.regions'], async (trial) => {
    const { address } = longest(trial)
    const within = { start: address + 100, length: 1000 }
    const found = await collect(trial.vm, { within })
    const [first] = found
    expectEqual(hex(first?.address ?? 0), hex(within.start), 'the first address of the pieces of a part')
    expectEqual(total(found), within.length, 'the number of bytes in the pieces of a part')
    const end = trial.memory('end')
    const across = await collect(trial.vm, { within: { start: end - PAGE_SIZE, length: 2 * PAGE_SIZE } })
    expectEqual(total(across), PAGE_SIZE, 'the number of bytes in the pieces across the end of RAM')
  })

  define('a loop that is left early', ['memory.regions', 'memory.read'], async (trial) => {
    const { vm } = trial
    const { address, bytes } = longest(trial)
    for (let times = 0; times < 3; times++) {
      for await (const _ of vm.memory.pieces({ pieceLength: PAGE_SIZE })) break
      const into = new Uint8Array(bytes.length)
      vm.memory.read(address, into)
      expectBytes(into, bytes, address, 'read() after a loop over pieces was left')
    }
    const found = await collect(vm, { within: { start: address, length: bytes.length } })
    expectEqual(total(found), bytes.length, 'the number of bytes in the pieces after loops that were left')
  })
})

interface Noted {
  readonly address: number
  readonly length: number
  /** The length of its bytes; undefined where it is known to be zero. */
  readonly bytes: number | undefined
}

async function collect(vm: Vm<'memory.regions'>, options: PiecesOptions): Promise<Noted[]> {
  const found: Noted[] = []
  for await (const { address, length, bytes } of vm.memory.pieces(options)) {
    found.push({ address, length, bytes: bytes?.length })
  }
  return found
}

async function gather(vm: Vm<'memory.regions'>, within: { readonly start: number; readonly length: number }) {
  const bytes = new Uint8Array(within.length)
  for await (const piece of vm.memory.pieces({ within })) place(piece, within.start, bytes)
  return bytes
}

function place(piece: MemoryPiece, start: number, into: Uint8Array): void {
  const offset = piece.address - start
  const fits = offset >= 0 && offset + piece.length <= into.length
  expect(fits, `the piece of ${piece.length} bytes at ${hex(piece.address)} is outside of what was asked for`)
  if (piece.bytes) into.set(piece.bytes, offset)
}

function total(found: readonly Noted[]): number {
  return found.reduce((sum, { length }) => sum + length, 0)
}

/** The whole of a range, or its two ends. */
function endsOf({ start, length }: MemoryRange, sample: number): { readonly start: number; readonly length: number }[] {
  if (length <= 2 * sample) return [{ start, length }]
  return [
    { start, length: sample },
    { start: start + length - sample, length: sample },
  ]
}
