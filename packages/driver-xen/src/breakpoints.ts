import { type BreakpointRequest, badArgument, MicrovmiError, PAGE_SIZE, pageFrame } from '@microvmi/core/driver'
import { AddressSpace, type PagingRegisters, type PhysicalMemory, pagingOf, physicalMemoryOf } from '@microvmi/paging'
import type { GuestMemory } from './guest-memory.ts'
import type { HvmRegisters } from './registers.ts'
import type { Patch, SessionNote } from './session-note.ts'

/** int3 (Intel SDM volume 2A). */
const INT3 = 0xcc
/** The longest instruction (Intel SDM volume 2A, section 2.3.11); Xen takes 16 bytes. */
const INSTRUCTION = 16

interface Armed {
  readonly physical: number
  readonly request: BreakpointRequest
}

/** Breakpoints of ours: int3 in the guest's code, hidden from reads by core, and stepped over by Xen's emulator. */
export class Breakpoints {
  readonly #memory: GuestMemory
  readonly #registers: HvmRegisters
  readonly #armed = new Map<number, Armed>()
  readonly #byte = new Uint8Array(1)
  readonly #note: SessionNote
  readonly #physical: PhysicalMemory
  /** How many vCPUs are stepping over the instruction at an address. */
  readonly #aside = new Map<number, number>()

  constructor(memory: GuestMemory, registers: HvmRegisters, note: SessionNote) {
    this.#memory = memory
    this.#note = note
    this.#registers = registers
    this.#physical = physicalMemoryOf((address, into) => memory.read(address, into) === into.length)
  }

  add(number: number, request: BreakpointRequest): void {
    if (request.method === 'hardware') {
      throw new MicrovmiError('UNSUPPORTED', "Xen hands over no debug registers of the guest's: leave method out")
    }
    const physical = 'physicalAddress' in request ? request.physicalAddress : this.#translate(request)
    const { patches } = this.#memory
    if (patches.original(physical) === undefined) {
      const original = this.#readByte(physical)
      patches.add(physical, original, INT3)
      this.#noteAll()
      try {
        this.#writeByte(physical, INT3)
      } catch (error) {
        patches.remove(physical)
        throw error
      }
    }
    this.#armed.set(number, { physical, request })
  }

  /** Takes one out, and the byte with the last at its address. */
  remove(number: number): void {
    const armed = this.#armed.get(number)
    if (!armed) return
    this.#armed.delete(number)
    const { physical } = armed
    if ([...this.#armed.values()].some((other) => other.physical === physical)) return
    const { patches } = this.#memory
    const original = patches.original(physical)
    if (original !== undefined) this.#takeOut(physical, original)
    patches.remove(physical)
    this.#noteAll()
  }

  /** Puts back what a killed session has left in the guest. */
  restore(left: readonly Patch[]): void {
    for (const { address, original } of left) this.#takeOut(address, original)
  }

  /** If this process is killed, the next one knows what to put back. */
  #noteAll(): void {
    const { patches } = this.#memory
    this.#note.replaced(
      [...patches.addresses()].map((address) => ({ address, original: patches.original(address) ?? 0 })),
    )
  }

  /** Whether one of ours is at a guest-physical address. */
  has(physical: number): boolean {
    return this.#memory.patches.original(physical) !== undefined
  }

  /** Whether the guest has an int3 of its own there: `cc`, or `cd 03`. */
  isGuests(physical: number): boolean {
    const byte = this.#byteAt(physical)
    return byte === INT3 || byte === 0xcd
  }

  /** The intercepts that one of ours answers to. */
  at(physical: number, rip: bigint, cr3: bigint): number[] {
    const numbers: number[] = []
    for (const [number, { physical: where, request }] of this.#armed) {
      if (where !== physical) continue
      if ('address' in request && BigInt.asUintN(64, request.address) !== rip) continue
      const { addressSpace } = request
      if (addressSpace === undefined || pageFrame(addressSpace) === pageFrame(cr3)) numbers.push(number)
    }
    return numbers
  }

  /** Takes the byte of one out until what is returned is called: while a vCPU executes the guest's own instruction. */
  aside(physical: number): () => void {
    const original = this.#memory.patches.original(physical)
    if (original === undefined) return () => {}
    const count = (this.#aside.get(physical) ?? 0) + 1
    this.#aside.set(physical, count)
    if (count === 1) this.#takeOut(physical, original)
    return () => {
      const left = (this.#aside.get(physical) ?? 1) - 1
      if (left > 0) {
        this.#aside.set(physical, left)
        return
      }
      this.#aside.delete(physical)
      if (this.has(physical) && this.#byteAt(physical) === original) this.#writeByte(physical, INT3)
    }
  }

  /** The guest's own instruction at `rip`, and zeros behind what is mapped. */
  instruction(registers: PagingRegisters, rip: bigint): Uint8Array {
    const bytes = new Uint8Array(INSTRUCTION)
    const space = new AddressSpace(this.#physical, pagingOf(registers))
    for (let done = 0; done < INSTRUCTION; ) {
      const address = space.translate(BigInt.asUintN(64, rip + BigInt(done)))?.physicalAddress
      if (address === undefined) break
      const part = bytes.subarray(done, done + Math.min(INSTRUCTION - done, PAGE_SIZE - (address % PAGE_SIZE)))
      if (this.#memory.read(address, part) < part.length) break
      this.#memory.patches.hide(address, part)
      done += part.length
    }
    return bytes
  }

  #translate({ address, addressSpace }: { readonly address: bigint; readonly addressSpace?: bigint }): number {
    const registers = this.#registers.read(0)
    const paging = pagingOf(addressSpace === undefined ? registers : { ...registers, cr3: addressSpace })
    const found = new AddressSpace(this.#physical, paging).translate(BigInt.asUintN(64, address))
    if (found) return found.physicalAddress
    throw badArgument(
      `nothing is mapped at 0x${address.toString(16)} in ${addressSpace === undefined ? "vCPU 0's address space" : 'that address space'}: ` +
        'give the addressSpace of a process that has it, or a physicalAddress',
    )
  }

  /** Puts the guest's byte back. A page that it has given back, or written anew, has no byte of ours any more. */
  #takeOut(physical: number, original: number): void {
    if (this.#byteAt(physical) === INT3) this.#writeByte(physical, original)
  }

  #readByte(physical: number): number {
    const byte = this.#byteAt(physical)
    if (byte !== undefined) return byte
    throw badArgument(`there is no memory at 0x${physical.toString(16)}`)
  }

  /** `undefined` where there is no memory. */
  #byteAt(physical: number): number | undefined {
    return this.#memory.read(physical, this.#byte) === 1 ? this.#byte[0] : undefined
  }

  #writeByte(physical: number, byte: number): void {
    if (this.#memory.write(physical, Uint8Array.of(byte)) === 1) return
    throw new MicrovmiError('HYPERVISOR', `the guest's code at 0x${physical.toString(16)} cannot be written`)
  }
}
