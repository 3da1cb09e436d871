import { MicrovmiError } from '@microvmi/core/driver'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Argument } from '../native.ts'
import { SavedMemory } from './memory.ts'
import type { ProviderCalls } from './provider.ts'

const PAGE = 4096
const E_OUTOFMEMORY = 0x8007_000e | 0

interface Answers {
  readonly chunks: readonly (readonly [bigint, bigint])[]
  /** What it says the number of chunks is, when asked and when it gives them. */
  readonly counts?: readonly [bigint, bigint]
  /** Where reads end. */
  readonly end?: number
}

/** Answers in place of the library, and notes where reads begin. */
class Answering implements ProviderCalls {
  readonly starts: number[] = []
  readonly #answers: Answers

  constructor(answers: Answers) {
    this.#answers = answers
  }

  call(name: string, state: Argument, ...values: Argument[]): void {
    const result = this.result(name, state, ...values)
    if (result < 0) throw new MicrovmiError('HYPERVISOR', name)
  }

  result(name: string, _state: Argument, ...values: Argument[]): number {
    if (name === 'ReadGuestPhysicalAddress') return this.#read(values)
    const { chunks, counts = [BigInt(chunks.length), BigInt(chunks.length)] } = this.#answers
    const [pageSize, list, count] = values
    if (!(pageSize instanceof BigUint64Array && count instanceof BigUint64Array)) throw new TypeError(name)
    pageSize[0] = BigInt(PAGE)
    count[0] = counts[list === null ? 0 : 1]
    if (!(list instanceof Uint8Array)) return E_OUTOFMEMORY
    const words = new BigUint64Array(list.buffer, 0, list.length / 8)
    words.set(chunks.flat().slice(0, words.length))
    return 0
  }

  #read([address, into, , got]: Argument[]): number {
    if (!(into instanceof Uint8Array && got instanceof Uint32Array)) throw new TypeError('ReadGuestPhysicalAddress')
    const { end = Number.POSITIVE_INFINITY } = this.#answers
    const start = Number(address)
    this.starts.push(start)
    const length = Math.max(0, Math.min(into.length, end - start))
    into.fill(start / PAGE, 0, length)
    got[0] = length
    return 0
  }
}

const memoryOf = (answers: Answers) => new SavedMemory(new Answering(answers), 1n)

test('what crosses into a hole is not read at all', () => {
  const provider = new Answering({ chunks: [[1n, 2n]] })
  const memory = new SavedMemory(provider, 1n)
  expect(memory.read(PAGE, new Uint8Array(3 * PAGE))).toBe(2 * PAGE)
  expect(memory.read(0, new Uint8Array(8))).toBe(0)
  expect(provider.starts).toEqual([])
  expect(memory.read(PAGE, new Uint8Array(2 * PAGE))).toBe(2 * PAGE)
})

test('scattered reads go by address, and each that fails is told by its own index', () => {
  const provider = new Answering({ chunks: [[0n, 8n]] })
  const buffers = [5, 99, 1, 7, 3].map((page) => ({ address: page * PAGE, into: new Uint8Array(16) }))
  const missing: (readonly [number, number])[] = []
  const reads = [...buffers, { address: 0, into: new Uint8Array(0) }]
  new SavedMemory(provider, 1n).readMany(reads, (index, address) => missing.push([index, address]))
  expect(missing).toEqual([[1, 99 * PAGE]])
  expect(provider.starts).toEqual([1, 3, 5, 7].map((page) => page * PAGE))
  expect(buffers.map(({ into }) => into[15])).toEqual([5, 0, 1, 7, 3])
})

test('fewer bytes than asked for, where the list has memory, are an error', () => {
  const memory = memoryOf({ chunks: [[0n, 2n]], end: PAGE + 1 })
  expect(() => memory.read(0, new Uint8Array(2 * PAGE))).toThrow(/has 4097 of 8192 bytes at 0x0/)
})

test('numbers of chunks that cannot be size nothing', () => {
  const chunks = [[0n, 1n]] as const
  for (const counts of [
    [0n, 0n],
    [2n ** 63n, 1n],
    [1n, 2n],
    [1n, 0n],
  ] as const) {
    expect(() => memoryOf({ chunks, counts })).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  }
})

test('any answer gives a layout that reads keep to, or PROTOCOL', () => {
  const word = fc.oneof(fc.bigInt({ min: 0n, max: 40n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
  const count = fc.oneof(fc.bigInt({ min: 0n, max: 6n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
  fc.assert(
    fc.property(
      fc.array(fc.tuple(word, word), { maxLength: 5 }),
      fc.option(fc.tuple(count, count), { nil: undefined }),
      fc.nat(50 * PAGE),
      fc.integer({ min: 1, max: 3 * PAGE }),
      (chunks, counts, address, length) => {
        try {
          const memory = memoryOf({ chunks, ...(counts ? { counts } : {}) })
          const read = memory.read(address, new Uint8Array(length))
          const { ranges } = memory.layout()
          const isMemory = (at: number) => ranges.some(({ start, length }) => at >= start && at - start < length)
          expect(read === length || !isMemory(address + read)).toBe(true)
          if (read > 0) expect(isMemory(address) && isMemory(address + read - 1)).toBe(true)
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' })
        }
      },
    ),
  )
})
