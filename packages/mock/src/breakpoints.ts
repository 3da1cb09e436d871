import {
  type BreakpointRequest,
  badAddress,
  badArgument,
  type InterceptRequest,
  MicrovmiError,
  Patches,
  pageFrame,
} from '@microvmi/core/driver'
import { emptyTranslation, uncanonical, walk } from './page-tables.ts'
import type { PhysicalMemory } from './physical-memory.ts'

/** The opcode of int3. */
const INT3 = 0xcc
/** Debug registers of x86 that hold an address (Intel SDM volume 3B, section 17.2.1). */
const HARDWARE_SLOTS = 4
const PAGE = 4096
/** Kernel addresses, which every address space maps alike, begin here. */
const KERNEL_HALF = 2 ** 47

type Watchpoint = Extract<InterceptRequest, { kind: 'watchpoint' }>

interface Breakpoint {
  readonly virtual: number | undefined
  readonly physical: number | undefined
  readonly root: number | undefined
  /** The patched guest-physical addresses; none for a hardware one. */
  readonly patched: readonly number[]
}

interface Watched {
  readonly virtual: number
  readonly length: number
  readonly access: 'r' | 'w' | 'rw'
  readonly root: number | undefined
}

/** Our breakpoints and watchpoints: int3 bytes patched into the guest, and its four debug registers. */
export class Breakpoints {
  /** What is patched, so that core hides it. */
  readonly patches = new Patches()
  readonly #memory: PhysicalMemory
  readonly #roots: () => Iterable<number>
  readonly #changed: () => void
  readonly #breakpoints = new Map<number, Breakpoint>()
  readonly #watchpoints = new Map<number, Watched>()
  #slots = 0

  /**
   * @param roots the address spaces in which an address that no space was given for is looked up
   * @param changed called when what a vCPU has cached may be wrong
   */
  constructor(memory: PhysicalMemory, roots: () => Iterable<number>, changed: () => void) {
    this.#memory = memory
    this.#roots = roots
    this.#changed = changed
  }

  add(request: BreakpointRequest, number: number): void {
    const root = request.addressSpace === undefined ? undefined : pageFrame(request.addressSpace)
    if ('physicalAddress' in request) {
      const physical = request.physicalAddress
      if (request.method === 'hardware') {
        throw new MicrovmiError('UNSUPPORTED', 'debug registers hold virtual addresses: use method: software')
      }
      if (!this.#memory.page(Math.floor(physical / PAGE))) throw badAddress(physical)
      this.#insert(number, { virtual: undefined, physical, root, patched: [physical] })
      return
    }
    const virtual = linear(request.address)
    const patched = request.method === 'hardware' ? [] : this.#places(virtual, root)
    if (request.method === 'software' && patched.length === 0) {
      throw badArgument(
        `0x${request.address.toString(16)} is mapped in no address space: use method: hardware, or wait until it is`,
      )
    }
    // An address of a process, in all of them, is what debug registers are for.
    const prefersHardware = request.method === undefined && root === undefined && virtual < KERNEL_HALF
    const hardware = patched.length === 0 || (prefersHardware && this.#slots < HARDWARE_SLOTS)
    if (hardware) this.#takeSlot()
    this.#insert(number, { virtual, physical: undefined, root, patched: hardware ? [] : patched })
  }

  addWatchpoint(request: Watchpoint, number: number): void {
    const virtual = linear(request.address)
    if (virtual % request.length !== 0) {
      throw badArgument(`a watchpoint of ${request.length} bytes is at a multiple of ${request.length}`)
    }
    this.#takeSlot()
    const root = request.addressSpace === undefined ? undefined : pageFrame(request.addressSpace)
    this.#watchpoints.set(number, { virtual, length: request.length, access: request.access, root })
    this.#changed()
  }

  remove(number: number): void {
    if (this.#watchpoints.delete(number)) this.#slots -= 1
    const breakpoint = this.#breakpoints.get(number)
    if (breakpoint) {
      this.#breakpoints.delete(number)
      if (breakpoint.patched.length === 0) this.#slots -= 1
      for (const address of breakpoint.patched) this.#unpatch(address)
    }
    this.#changed()
  }

  /** The breakpoints that an instruction at this place meets. */
  at(virtual: number, physical: number, root: number): number[] {
    const found: number[] = []
    for (const [number, one] of this.#breakpoints) {
      const place = one.virtual === undefined ? one.physical === physical : one.virtual === virtual
      if (place && (one.root === undefined || one.root === root)) found.push(number)
    }
    return found
  }

  /** Whether a breakpoint in a debug register is in the page that begins here. */
  hardwareIn(page: number): boolean {
    if (this.#slots === 0) return false
    for (const { virtual, patched } of this.#breakpoints.values()) {
      if (patched.length === 0 && virtual !== undefined && virtual - (virtual % PAGE) === page) return true
    }
    return false
  }

  /** Whether something is watched in the page that begins here. */
  watchedIn(page: number): boolean {
    for (const { virtual } of this.#watchpoints.values()) if (virtual - (virtual % PAGE) === page) return true
    return false
  }

  /** The watchpoints that an access touches. */
  watching(virtual: number, length: number, access: 'r' | 'w', root: number): number[] {
    const found: number[] = []
    for (const [number, one] of this.#watchpoints) {
      const touched = virtual < one.virtual + one.length && virtual + length > one.virtual
      if (touched && one.access.includes(access) && (one.root === undefined || one.root === root)) found.push(number)
    }
    return found
  }

  /** Patches again what a reset of the guest has overwritten. */
  repatch(): void {
    for (const address of [...this.patches.addresses()]) {
      this.patches.add(address, this.#byte(address), INT3)
      this.#setByte(address, INT3)
    }
  }

  #takeSlot(): void {
    if (this.#slots >= HARDWARE_SLOTS) {
      throw new MicrovmiError('BUSY', `all ${HARDWARE_SLOTS} debug registers are in use: end another one first`)
    }
    this.#slots += 1
  }

  #insert(number: number, breakpoint: Breakpoint): void {
    this.#breakpoints.set(number, breakpoint)
    for (const address of breakpoint.patched) {
      if (this.patches.original(address) !== undefined) continue
      this.patches.add(address, this.#byte(address), INT3)
      this.#setByte(address, INT3)
    }
    this.#changed()
  }

  #unpatch(address: number): void {
    for (const { patched } of this.#breakpoints.values()) if (patched.includes(address)) return
    const original = this.patches.original(address)
    this.patches.remove(address)
    // What the guest itself has written there meanwhile stays.
    if (original !== undefined && this.#byte(address) === INT3) this.#setByte(address, original)
  }

  /** Where a virtual address is in memory: in one address space, or in all. */
  #places(virtual: number, root: number | undefined): number[] {
    const found = new Set<number>()
    const translation = emptyTranslation()
    for (const space of root === undefined ? this.#roots() : [root]) {
      if (
        walk(this.#memory, space, virtual, translation) &&
        this.#memory.page(Math.floor(translation.physical / PAGE))
      ) {
        found.add(translation.physical)
      }
    }
    return [...found]
  }

  #byte(address: number): number {
    return this.#memory.page(Math.floor(address / PAGE))?.view.getUint8(address % PAGE) ?? 0
  }

  #setByte(address: number, value: number): void {
    this.#memory.page(Math.floor(address / PAGE))?.view.setUint8(address % PAGE, value)
  }
}

function linear(address: bigint): number {
  const found = uncanonical(address)
  if (found === undefined) throw badArgument(`0x${address.toString(16)} is no canonical address`)
  return found
}
