import { type MemoryBackend, MicrovmiError, PAGE_SIZE, pageStart } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'

/** The server copies what is written into a buffer of this size first, unchecked (DBGCTcp.cpp, TempBuffer). */
const MOST_AT_ONCE = 2 ** 20

/** Guest-physical memory over FDP. The server reads and writes a range as a whole or not at all. */
export class FdpMemory implements MemoryBackend {
  readonly #client: FdpClient
  readonly #byte = new Uint8Array(1)

  constructor(client: FdpClient) {
    this.#client = client
  }

  read(address: number, into: Uint8Array): number {
    if (into.length <= MOST_AT_ONCE) {
      return this.#client.readPhysical(address, into) ? into.length : this.#refused(address, into.length)
    }
    for (let done = 0; done < into.length; done += MOST_AT_ONCE) {
      const piece = into.subarray(done, done + MOST_AT_ONCE)
      if (!this.#client.readPhysical(address + done, piece)) return done + this.#refused(address + done, piece.length)
    }
    return into.length
  }

  write(address: number, from: Uint8Array): number {
    if (from.length <= MOST_AT_ONCE) {
      return this.#client.writePhysical(address, from) ? from.length : this.#refused(address, from.length)
    }
    // All or nothing: the server checks each piece before it writes it, but not the pieces behind it.
    const bad = this.#firstBad(address, from.length)
    if (bad < from.length) return bad
    for (let done = 0; done < from.length; done += MOST_AT_ONCE) {
      const piece = from.subarray(done, done + MOST_AT_ONCE)
      if (!this.#client.writePhysical(address + done, piece)) return done + this.#refused(address + done, piece.length)
    }
    return from.length
  }

  /** The offset of the first byte that is not memory, after the server has refused the range. */
  #refused(address: number, length: number): number {
    const bad = this.#firstBad(address, length)
    if (bad < length) return bad
    throw new MicrovmiError(
      'HYPERVISOR',
      `the FDP server refuses ${length} bytes at 0x${address.toString(16)}, and reads each page of them`,
    )
  }

  /** A page is memory as a whole, or not; `length` where all are. */
  #firstBad(address: number, length: number): number {
    for (let page = pageStart(address); page < address + length; page += PAGE_SIZE) {
      const first = Math.max(page, address)
      if (!this.#client.readPhysical(first, this.#byte)) return first - address
    }
    return length
  }
}
