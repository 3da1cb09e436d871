import {
  type MemoryBackend,
  type MemoryLayout,
  MicrovmiError,
  Patches,
  type ScatteredRead,
} from '@microvmi/core/driver'
import type { Connection } from './connection.ts'
import { isNoMemory, kernelError } from './errors.ts'
import { PAGE } from './layout.ts'
import { MemoryProbe } from './memory-probe.ts'

/** Guest-physical memory, by commands that each stay within one page. */
export class KvmiMemory implements MemoryBackend {
  readonly patches = new Patches()
  readonly #connection: Connection
  readonly #probe: MemoryProbe

  constructor(connection: Connection) {
    this.#connection = connection
    this.#probe = new MemoryProbe(connection)
  }

  read(address: number, into: Uint8Array): number {
    const count = pagesIn(address, into.length)
    let missing = into.length
    this.#connection.askAll(
      count,
      (message, index) => {
        const offset = offsetOf(address, index)
        this.#connection.requests.readPhysical(message, address + offset, lengthAt(address, offset, into.length))
      },
      ({ error, bytes, start, length }, index) => {
        const offset = offsetOf(address, index)
        if (error !== 0) {
          if (!isNoMemory(error)) throw kernelError(error, `reading memory at 0x${(address + offset).toString(16)}`)
          missing = Math.min(missing, offset)
          return
        }
        const expected = lengthAt(address, offset, into.length)
        if (length !== expected) throw wrongLength(length, expected)
        bytes.copy(into, offset, start, start + expected)
      },
    )
    return missing
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    const parts = reads.flatMap(({ address, into }, read) =>
      Array.from({ length: into.length === 0 ? 0 : pagesIn(address, into.length) }, (_, index) => ({
        read,
        offset: offsetOf(address, index),
        address,
        into,
      })),
    )
    const missing = new Map<number, number>()
    this.#connection.askAll(
      parts.length,
      (message, index) => {
        const part = parts[index]
        if (!part) return
        const { address, offset, into } = part
        this.#connection.requests.readPhysical(message, address + offset, lengthAt(address, offset, into.length))
      },
      ({ error, bytes, start, length }, index) => {
        const part = parts[index]
        if (!part) return
        const { read, address, offset, into } = part
        if (error !== 0) {
          if (!isNoMemory(error)) throw kernelError(error, `reading memory at 0x${(address + offset).toString(16)}`)
          missing.set(read, Math.min(missing.get(read) ?? into.length, offset))
          return
        }
        const expected = lengthAt(address, offset, into.length)
        if (length !== expected) throw wrongLength(length, expected)
        bytes.copy(into, offset, start, start + expected)
      },
    )
    for (const [index, offset] of missing) failed(index, (reads[index]?.address ?? 0) + offset)
  }

  /** All or nothing: that every page is there is seen before the first is written. */
  write(address: number, from: Uint8Array): number {
    const count = pagesIn(address, from.length)
    if (count > 1) {
      const missing = this.firstMissing(address, from.length)
      if (missing !== undefined) return Math.max(0, missing - address)
    }
    let failed: number | undefined
    this.#connection.askAll(
      count,
      (message, index) => {
        const offset = offsetOf(address, index)
        const part = from.subarray(offset, offset + lengthAt(address, offset, from.length))
        this.#connection.requests.writePhysical(message, address + offset, part)
      },
      ({ error }, index) => {
        if (error === 0) return
        const offset = offsetOf(address, index)
        if (!isNoMemory(error)) throw kernelError(error, `writing memory at 0x${(address + offset).toString(16)}`)
        failed = Math.min(failed ?? from.length, offset)
      },
    )
    return failed ?? from.length
  }

  /** The first address of a range whose page is not there, if any. */
  firstMissing(address: number, length: number): number | undefined {
    let missing: number | undefined
    const first = address - (address % PAGE)
    this.#probe.pages(
      pagesIn(address, length),
      (index) => first + index * PAGE,
      (index, isThere) => {
        if (!isThere) missing = Math.min(missing ?? Number.POSITIVE_INFINITY, Math.max(address, first + index * PAGE))
      },
    )
    return missing
  }

  layout(): MemoryLayout {
    return this.#probe.layout()
  }
}

function wrongLength(length: number, expected: number): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `KVMi answered a read of ${expected} bytes with ${length}`)
}

function pagesIn(address: number, length: number): number {
  return Math.ceil(((address % PAGE) + length) / PAGE)
}

/** Where the part of a range that lies in its page number `index` begins. */
function offsetOf(address: number, index: number): number {
  return index === 0 ? 0 : index * PAGE - (address % PAGE)
}

/** From there to the end of its page, or of the range. */
function lengthAt(address: number, offset: number, length: number): number {
  return Math.min(PAGE - ((address + offset) % PAGE), length - offset)
}
