import type { Vm } from '@microvmi/core'
import type { PagingMode } from './mode.ts'
import { GEOMETRY, PRESENT } from './tables.ts'

/** RAM of a guest in a test, with a builder of page tables written from the manual's tables, not from the walker. */
export class TestGuest {
  readonly bytes = new Uint8Array(8 * 2 ** 20)
  readonly view: DataView = new DataView(this.bytes.buffer)
  #free = 0x10_0000

  /** Guest memory as a Vm: only what paging uses. */
  readonly vm = {
    memory: {
      tryRead: (address: number, into: Uint8Array): boolean => {
        if (address + into.length > this.bytes.length) return false
        into.set(this.bytes.subarray(address, address + into.length))
        return true
      },
      readMany: (reads: readonly { address: number; into: Uint8Array }[]) =>
        reads.flatMap(({ address, into }, index) =>
          this.vm.memory.tryRead(address, into) ? [] : [{ index, address }],
        ),
    },
  } as unknown as Vm<'memory.read' | 'registers.read'>

  allocate(): number {
    const page = this.#free
    this.#free += 4096
    return page
  }

  /** Maps one page; `flags` go into the last entry, the tables above allow everything. */
  map(
    mode: Exclude<PagingMode, 'none'>,
    root: number,
    address: bigint,
    physical: number,
    pageSize: number,
    flags: bigint,
  ): void {
    const { levels, entryBytes } = GEOMETRY[mode]
    let table = root
    for (const { shift, bits, hasRights } of levels) {
      const slot = table + Number((address >> BigInt(shift)) & BigInt(2 ** bits - 1)) * entryBytes
      if (pageSize === 2 ** shift) {
        const large = shift > 12 ? 0x80n : 0n
        const base = BigInt(physical)
        const split = entryBytes === 4 && shift === 22 ? (base & 0xffc0_0000n) | ((base >> 32n) << 13n) : base
        this.write(slot, split | flags | large | 1n, entryBytes)
        return
      }
      const present = this.view.getUint32(slot, true)
      if ((present & PRESENT) === 0) this.write(slot, BigInt(this.allocate()) | (hasRights ? 7n : 1n), entryBytes)
      table = Number(this.read(slot, entryBytes) & 0xf_ffff_ffff_f000n)
    }
  }

  read(address: number, length: 4 | 8): bigint {
    return length === 4 ? BigInt(this.view.getUint32(address, true)) : this.view.getBigUint64(address, true)
  }

  write(address: number, value: bigint, length: 4 | 8): void {
    if (length === 4) this.view.setUint32(address, Number(value), true)
    else this.view.setBigUint64(address, value, true)
  }
}
