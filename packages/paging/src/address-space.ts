import { ADDRESS_LIMIT, MicrovmiError, PAGE_SIZE, type ScatteredRead, type Vm } from '@microvmi/core'
import { type Paging, pagingOf } from './mode.ts'
import type { PhysicalMemory } from './physical-memory.ts'
import { addressIn, type Entry, GEOMETRY, PAGE_SIZE_BIT, PRESENT, USER, WRITABLE } from './tables.ts'

/** Where a virtual address leads, and what its mapping allows. */
export interface Translation {
  readonly physicalAddress: number
  /** Bytes of the page: 4 KiB, 2 MiB, 4 MiB or 1 GiB. */
  readonly pageSize: number
  readonly writable: boolean
  /** Whether user mode may use it. */
  readonly user: boolean
  readonly executable: boolean
}

/**
 * One address space of a guest: its memory by virtual addresses, through the guest's own page tables as they are at
 * each call. The tables are the guest's and may say anything: a walk takes as many steps as the mode has levels.
 *
 * Virtual addresses are unsigned bigints of 64 bits: kernel addresses are large numbers, not negative ones.
 *
 * @example
 * ```ts
 * import type { Vm } from '@microvmi/core'
 * import { AddressSpace } from '@microvmi/paging'
 *
 * function nameAt(vm: Vm<'memory.read' | 'registers.read'>, address: bigint): string {
 *   return AddressSpace.of(vm, 0).readString(address, 16)
 * }
 * ```
 */
export class AddressSpace {
  readonly paging: Paging
  readonly #vm: PhysicalMemory
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #entry: Entry = { low: 0, high: 0 }

  /** The address space that begins at `paging.root`: another process's, say, whose CR3 is known. */
  constructor(vm: PhysicalMemory, paging: Paging) {
    this.paging = paging
    this.#vm = vm
    this.#bytes = new Uint8Array(paging.mode === '32-bit' ? 4 : 8)
    this.#view = new DataView(this.#bytes.buffer)
  }

  /** The address space that a vCPU is in now. */
  static of(vm: Vm<'memory.read' | 'registers.read'>, vcpu: number): AddressSpace {
    return new AddressSpace(vm, pagingOf(vm.readRegisters(vcpu)))
  }

  /** Where an address leads, or `undefined` where nothing is mapped. Throws `BAD_ARGUMENT` for what is no address. */
  translate(address: bigint): Translation | undefined {
    checkAddress(address)
    const { mode, root, noExecute, largePages } = this.paging
    if (mode === 'none') return identity(address)
    const { levels, entryBytes, virtualBits } = GEOMETRY[mode]
    if (!isCanonical(address, virtualBits)) return undefined
    // Two halves, so that each index is arithmetic on 32 bits.
    const high = Number((address >> 30n) & 0x7ff_ffffn)
    const low = Number(address & 0x3fff_ffffn)
    let table = root
    let rights = WRITABLE | USER
    let executable = true
    for (const { shift, bits, mayMap, hasRights } of levels) {
      const index =
        (shift >= 30 ? high >>> (shift - 30) : ((high << (30 - shift)) | (low >>> shift)) >>> 0) & (2 ** bits - 1)
      const entry = this.#readEntry(table + index * entryBytes)
      if (!entry) return undefined
      if (hasRights) {
        rights &= entry.low
        if (noExecute && entry.high >>> 31 === 1) executable = false
      }
      const maps = shift === 12 || (mayMap && largePages && (entry.low & PAGE_SIZE_BIT) !== 0)
      if (maps) {
        const pageSize = 2 ** shift
        return {
          physicalAddress: addressIn(entry, entryBytes, shift) + Number(address & BigInt(pageSize - 1)),
          pageSize,
          writable: (rights & WRITABLE) !== 0,
          user: (rights & USER) !== 0,
          executable,
        }
      }
      // Where PS is reserved, the processor faults on it: nothing is mapped there.
      if (!mayMap && hasRights && (entry.low & PAGE_SIZE_BIT) !== 0) return undefined
      table = addressIn(entry, entryBytes, 12)
    }
    return undefined
  }

  /**
   * Fills `into` from virtual memory, however many pages that takes, in one go. Throws `BAD_ADDRESS` when a byte is
   * not mapped or not memory; what `into` holds then is undefined.
   */
  read(address: bigint, into: Uint8Array): void {
    const reads = this.#reads(address, into)
    const [failure] = this.#vm.memory.readMany(reads)
    if (failure) {
      throw new MicrovmiError(
        'BAD_ADDRESS',
        `virtual memory at ${hex(address)} leads to 0x${failure.address.toString(16)}, which is not guest memory`,
        { address: failure.address },
      )
    }
  }

  /** Like `read`, but false instead of `BAD_ADDRESS`. */
  tryRead(address: bigint, into: Uint8Array): boolean {
    try {
      this.read(address, into)
      return true
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'BAD_ADDRESS') return false
      throw error
    }
  }

  /** A word, little endian. Errors as `read`. */
  readUint32(address: bigint): number {
    const word = new DataView(new ArrayBuffer(4))
    this.read(address, new Uint8Array(word.buffer))
    return word.getUint32(0, true)
  }

  /** A word, little endian: a pointer, say. Errors as `read`. */
  readUint64(address: bigint): bigint {
    const word = new DataView(new ArrayBuffer(8))
    this.read(address, new Uint8Array(word.buffer))
    return word.getBigUint64(0, true)
  }

  /**
   * Text up to its first zero byte, of at most `limit` bytes, as UTF-8 with replacement characters for what is none.
   * Memory that ends before a zero byte ends the text. Throws `BAD_ADDRESS` when the first byte cannot be read.
   */
  readString(address: bigint, limit: number): string {
    const bytes = new Uint8Array(limit)
    let length = 0
    while (length < limit) {
      const at = address + BigInt(length)
      const inPage = Math.min(limit - length, PAGE_SIZE - Number(at & 0xfffn))
      const piece = bytes.subarray(length, length + inPage)
      if (length === 0) this.read(at, piece)
      else if (!this.tryRead(at, piece)) break
      const end = piece.indexOf(0)
      if (end >= 0) return decode(bytes.subarray(0, length + end))
      length += inPage
    }
    return decode(bytes.subarray(0, length))
  }

  /** Whether the page table maps `address` to exactly this guest-physical address now. */
  maps(address: bigint, physicalAddress: number): boolean {
    return this.translate(address)?.physicalAddress === physicalAddress
  }

  #reads(address: bigint, into: Uint8Array): ScatteredRead[] {
    checkAddress(address)
    const reads: ScatteredRead[] = []
    let done = 0
    while (done < into.length) {
      const at = BigInt.asUintN(64, address + BigInt(done))
      const translation = this.translate(at)
      if (!translation) throw new MicrovmiError('BAD_ADDRESS', `virtual address ${hex(at)} is not mapped`)
      const { physicalAddress, pageSize } = translation
      const length = Math.min(into.length - done, pageSize - (physicalAddress % pageSize))
      reads.push({ address: physicalAddress, into: into.subarray(done, done + length) })
      done += length
    }
    return reads
  }

  /** A present entry, or `undefined` where it is not present or where the table is not in guest memory. */
  #readEntry(address: number): Entry | undefined {
    if (!this.#vm.memory.tryRead(address, this.#bytes)) return undefined
    this.#entry.low = this.#view.getUint32(0, true)
    this.#entry.high = this.#bytes.length === 8 ? this.#view.getUint32(4, true) : 0
    return (this.#entry.low & PRESENT) === 0 ? undefined : this.#entry
  }
}

const decoder = new TextDecoder()

function decode(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/** Without paging, addresses are physical. */
function identity(address: bigint): Translation | undefined {
  if (address >= BigInt(ADDRESS_LIMIT)) return undefined
  return { physicalAddress: Number(address), pageSize: PAGE_SIZE, writable: true, user: true, executable: true }
}

function checkAddress(address: bigint): void {
  if (typeof address !== 'bigint' || BigInt.asUintN(64, address) !== address) {
    throw new MicrovmiError(
      'BAD_ARGUMENT',
      `a virtual address is a bigint from 0n to 2n ** 64n - 1n, not ${String(address)}`,
    )
  }
}

/** Whether the bits above the translated ones repeat the topmost of them, or are zero with 32-bit addresses. */
function isCanonical(address: bigint, virtualBits: 32 | 48 | 57): boolean {
  if (virtualBits === 32) return address < 2n ** 32n
  return BigInt.asUintN(64, BigInt.asIntN(virtualBits, address)) === address
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`
}
