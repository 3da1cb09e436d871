import { type MemoryBackend, type MemoryLayout, MicrovmiError, type ScatteredRead } from '@microvmi/core/driver'
import { failed, hresultError } from '../errors.ts'
import { CHUNK_SIZE, coveredFrom, layoutOf, MOST_CHUNKS } from './chunk-list.ts'
import type { ProviderCalls } from './provider.ts'

/** winerror.h, E_OUTOFMEMORY: the answer to the question for the number of chunks. */
const TOO_SMALL = 0x8007_000e
/** Bytes of one call at most: its length has 32 bits. */
const MOST_AT_ONCE = 2 ** 30

/** The memory of a saved state. */
export class SavedMemory implements MemoryBackend {
  readonly #provider: ProviderCalls
  readonly #state: bigint
  readonly #layout: MemoryLayout
  readonly #got = new Uint32Array(1)

  constructor(provider: ProviderCalls, state: bigint) {
    this.#provider = provider
    this.#state = state
    this.#layout = chunks(provider, state)
  }

  layout(): MemoryLayout {
    return this.#layout
  }

  read(address: number, into: Uint8Array): number {
    const covered = coveredFrom(this.#layout.ranges, address, into.length)
    if (covered < into.length) return covered
    if (into.length <= MOST_AT_ONCE) this.#fill(address, into)
    else this.#fillInPieces(address, into)
    return into.length
  }

  /** By address: pages that the file keeps together are unpacked once, whatever their order. */
  readMany(reads: readonly ScatteredRead[], missing: (index: number, address: number) => void): void {
    const order = reads.map(({ address, into }, index) => ({ address, into, index }))
    order.sort((one, other) => one.address - other.address)
    for (const { address, into, index } of order) {
      if (into.length === 0) continue
      const read = this.read(address, into)
      if (read < into.length) missing(index, address + read)
    }
  }

  #fillInPieces(address: number, into: Uint8Array): void {
    for (let offset = 0; offset < into.length; offset += MOST_AT_ONCE) {
      this.#fill(address + offset, into.subarray(offset, offset + MOST_AT_ONCE))
    }
  }

  /** All of it is in the chunk list. */
  #fill(address: number, into: Uint8Array): void {
    this.#got[0] = 0
    this.#provider.call('ReadGuestPhysicalAddress', this.#state, address, into, into.length, this.#got)
    const [got = 0] = this.#got
    if (got === into.length) return
    throw new MicrovmiError(
      'PROTOCOL',
      `the saved state has ${got} of ${into.length} bytes at 0x${address.toString(16)}, where its chunk list has ` +
        'memory: the file is cut or damaged',
    )
  }
}

/** GetGuestPhysicalMemoryChunks: first for their number, then for them. */
function chunks(provider: ProviderCalls, state: bigint): MemoryLayout {
  const pageSize = new BigUint64Array(1)
  const count = new BigUint64Array(1)
  const asked = provider.result('GetGuestPhysicalMemoryChunks', state, pageSize, null, count)
  if (failed(asked) && asked >>> 0 !== TOO_SMALL) throw hresultError('GetGuestPhysicalMemoryChunks', asked)
  const room = checkedCount(count)
  const list = new Uint8Array(room * CHUNK_SIZE)
  provider.call('GetGuestPhysicalMemoryChunks', state, pageSize, list, count)
  const given = checkedCount(count)
  if (given > room) throw malformed(`${given} chunks, after it had ${room}`)
  return layoutOf(list.subarray(0, given * CHUNK_SIZE), pageSize[0] ?? 0n)
}

function checkedCount([count = 0n]: BigUint64Array): number {
  if (count === 0n || count > MOST_CHUNKS) throw malformed(`${count} chunks`)
  return Number(count)
}

function malformed(what: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the saved state's memory has ${what}: the file is damaged`)
}
