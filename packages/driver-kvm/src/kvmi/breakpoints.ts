import { type BreakpointRequest, badArgument, MicrovmiError, pageFrame } from '@microvmi/core/driver'
import { AddressSpace, type PhysicalMemory, pagingOf, physicalMemoryOf } from '@microvmi/paging'
import type { KvmiMemory } from './guest-memory.ts'
import type { KvmiRegisters } from './registers.ts'
import type { Aside } from './stepper.ts'

/** int3 (Intel SDM volume 2A). */
const INT3 = 0xcc

interface Armed {
  readonly physical: number
  readonly request: BreakpointRequest
}

/** Breakpoints of ours: int3 in the guest's code, hidden from reads by core. */
export class Breakpoints {
  readonly #memory: KvmiMemory
  readonly #registers: KvmiRegisters
  readonly #armed = new Map<number, Armed>()
  readonly #byte = new Uint8Array(1)
  readonly #physical: PhysicalMemory
  #everUsed = false

  constructor(memory: KvmiMemory, registers: KvmiRegisters) {
    this.#memory = memory
    this.#registers = registers
    this.#physical = physicalMemoryOf((address, into) => memory.read(address, into) === into.length)
  }

  /** Puts one in. Call it while the guest stands still, or `isLive` of events that were on their way lies. */
  add(number: number, request: BreakpointRequest): void {
    if (request.method === 'hardware') {
      throw new MicrovmiError('UNSUPPORTED', 'KVMi has no debug registers to give: leave method out')
    }
    const physical = this.#physicalOf(request)
    const { patches } = this.#memory
    if (patches.original(physical) === undefined) {
      const original = this.#read(physical)
      patches.add(physical, original, INT3)
      try {
        this.#write(physical, INT3)
      } catch (error) {
        patches.remove(physical)
        throw error
      }
    }
    this.#armed.set(number, { physical, request })
    this.#everUsed = true
  }

  /** Takes one out, and the byte with the last at its address. */
  remove(number: number): void {
    const armed = this.#armed.get(number)
    if (!armed) return
    this.#armed.delete(number)
    const { physical } = armed
    if ([...this.#armed.values()].some((other) => other.physical === physical)) return
    this.#putBack(physical)
  }

  /** Whether one of ours is at a guest-physical address. */
  has(physical: number): boolean {
    return this.#memory.patches.original(physical) !== undefined
  }

  /** Whether an int3 that was reported may have been one of ours that is gone by now: nothing of it is there. */
  isGone(physical: number): boolean {
    if (!this.#everUsed) return false
    const byte = this.#read(physical)
    // `cd 03` is the guest's other way to write it.
    return byte !== INT3 && byte !== 0xcd
  }

  /** The intercepts that one of ours answers to, in an address space. */
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

  /** For the guest's own instruction to be executed. */
  aside(physical: number): Aside {
    return {
      take: () => {
        const original = this.#memory.patches.original(physical)
        if (original !== undefined) this.#takeOut(physical, original)
      },
      putBack: () => {
        const original = this.#memory.patches.original(physical)
        if (original !== undefined && this.#byteAt(physical) === original) this.#write(physical, INT3)
      },
    }
  }

  /** As the guest was before. */
  release(): void {
    this.#armed.clear()
    for (const physical of [...this.#memory.patches.addresses()]) this.#putBack(physical)
  }

  #putBack(physical: number): void {
    const { patches } = this.#memory
    const original = patches.original(physical)
    if (original !== undefined) this.#takeOut(physical, original)
    patches.remove(physical)
  }

  /** Puts the guest's byte back. A page that it has given back, or written anew, has no byte of ours any more. */
  #takeOut(physical: number, original: number): void {
    if (this.#byteAt(physical) === INT3) this.#write(physical, original)
  }

  #physicalOf(request: BreakpointRequest): number {
    if ('physicalAddress' in request) return request.physicalAddress
    const registers = this.#registers.paging(0)
    const space = request.addressSpace ?? registers.cr3
    const paging = pagingOf({ ...registers, cr3: space })
    const found = new AddressSpace(this.#physical, paging).translate(BigInt.asUintN(64, request.address))
    if (found) return found.physicalAddress
    throw badArgument(
      `nothing is mapped at 0x${request.address.toString(16)} in the address space of CR3 0x${space.toString(16)}: ` +
        'give the addressSpace of a process that has it, or a physicalAddress',
    )
  }

  #read(physical: number): number {
    const byte = this.#byteAt(physical)
    if (byte !== undefined) return byte
    throw badArgument(`there is no memory at 0x${physical.toString(16)}`)
  }

  /** `undefined` where there is no memory. */
  #byteAt(physical: number): number | undefined {
    return this.#memory.read(physical, this.#byte) === 1 ? this.#byte[0] : undefined
  }

  #write(physical: number, byte: number): void {
    if (this.#memory.write(physical, Uint8Array.of(byte)) === 1) return
    throw new MicrovmiError('HYPERVISOR', `the guest's code at 0x${physical.toString(16)} cannot be written`)
  }
}
