import { type MemoryBackend, MicrovmiError, pageFrame, type Registers } from '@microvmi/core/driver'
import { AddressSpace, type Mapping, mappings, type PhysicalMemory, pagingOf, physicalMemoryOf } from '@microvmi/paging'
import type { Attached } from './watchers/watcher.ts'

/**
 * So much code is looked through at most, while the guest stands still. A kernel has some ten MiB; while it boots all
 * of memory may be executable, and hostile tables may describe any amount.
 */
const CODE_LIMIT = 256 * 2 ** 20
const PIECE = 2 ** 20

/** The guest's code, by virtual addresses, through its own page tables. */
export class CodeMemory {
  readonly #memory: Required<Pick<MemoryBackend, 'read' | 'write'>>
  readonly #physical: PhysicalMemory
  readonly #byte = new Uint8Array(1)

  constructor(memory: Required<Pick<MemoryBackend, 'read' | 'write'>>) {
    this.#memory = memory
    this.#physical = physicalMemoryOf((address, into) => memory.read(address, into) === into.length)
  }

  readByte(address: number): number {
    if (this.#memory.read(address, this.#byte) !== 1) throw gone(address)
    return this.#byte[0] ?? 0
  }

  writeByte(address: number, value: number): void {
    this.#byte[0] = value
    if (this.#memory.write(address, this.#byte) !== 1) throw gone(address)
  }

  /** Bytes at a virtual address; fewer where the next page is not there. */
  read(registers: Registers, address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    const space = new AddressSpace(this.#physical, pagingOf(registers))
    for (let done = 0; done < length; done++) {
      const at = space.translate(BigInt.asUintN(64, address + BigInt(done)))
      if (!at) return bytes.subarray(0, done)
      bytes[done] = this.readByte(at.physicalAddress)
    }
    return bytes
  }

  /**
   * Every piece of code of an address space that only the kernel may use, ascending. A piece begins with the last
   * bytes of the one before where they are neighbours, so that no instruction falls between two. Valid until the next.
   */
  *kernelCode(registers: Registers): Generator<{ readonly address: bigint; readonly bytes: Uint8Array }> {
    const paging = pagingOf(registers)
    if (paging.mode === 'none') return
    const buffer = new Uint8Array(OVERLAP + PIECE)
    let end: bigint | undefined
    let total = 0
    for (const mapping of mappings(this.#physical, paging)) {
      if (mapping.user || !mapping.executable) continue
      for (const [address, physical, length] of piecesOf(mapping)) {
        const kept = address === end ? OVERLAP : 0
        total += length
        if (total > CODE_LIMIT) return
        const bytes = buffer.subarray(OVERLAP - kept, OVERLAP + length)
        if (this.#memory.read(physical, bytes.subarray(kept)) !== length) {
          end = undefined
          continue
        }
        yield { address: address - BigInt(kept), bytes }
        buffer.copyWithin(0, length, OVERLAP + length)
        end = address + BigInt(length)
      }
    }
  }

  /** Where a virtual address leads in the address space of `cr3`, or of the selected vCPU. */
  locate({ gdb, layout }: Attached, address: bigint, cr3: bigint | undefined): { patched: number; space: bigint } {
    const registers = layout.registers(gdb.readAll())
    const space = cr3 ?? registers.cr3
    const at = new AddressSpace(this.#physical, pagingOf({ ...registers, cr3: space })).translate(address)
    if (at) return { patched: at.physicalAddress, space }
    throw new MicrovmiError(
      'BAD_ARGUMENT',
      `0x${address.toString(16)} is not mapped in the address space of CR3 0x${space.toString(16)}: a software ` +
        'breakpoint changes the code, so the code has to be there. Give its addressSpace, or wait until it is mapped',
    )
  }

  /** Does `work` with the selected vCPU in another address space. The VM is stopped: the guest sees nothing of it. */
  inAddressSpace<T>({ gdb }: Attached, cr3: bigint | undefined, work: () => T): T {
    const register = gdb.registers().get('cr3')
    if (cr3 === undefined || !register) return work()
    const present = gdb.read(register)
    if (pageFrame(present) === pageFrame(cr3)) return work()
    gdb.write(register, cr3)
    try {
      return work()
    } finally {
      gdb.write(register, present)
    }
  }
}

/** Bytes that are kept of a piece: one fewer than the longest instruction (Intel SDM volume 2A, section 2.3.11). */
const OVERLAP = 14

function* piecesOf({
  virtualAddress,
  physicalAddress,
  pageSize,
}: Mapping): Generator<readonly [bigint, number, number]> {
  for (let offset = 0; offset < pageSize; offset += PIECE) {
    yield [virtualAddress + BigInt(offset), physicalAddress + offset, Math.min(PIECE, pageSize - offset)]
  }
}

function gone(address: number): MicrovmiError {
  return new MicrovmiError('BAD_ADDRESS', `the guest's code at 0x${address.toString(16)} is no memory any more`, {
    address,
  })
}
