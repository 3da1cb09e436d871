import { MicrovmiError, type Patches } from '@microvmi/core/driver'
import type { CodeMemory } from './code-memory.ts'
import { POINT, type PointType } from './gdb.ts'
import type { Attached, Watcher } from './watchers/watcher.ts'

/** A breakpoint or watchpoint in the stub, for all that asked for it. */
export interface Point {
  readonly type: PointType
  readonly address: bigint
  readonly length: number
  readonly users: Set<Watcher>
  /** Guest-physical address of the byte that QEMU has replaced, where it has. */
  readonly patched: number | undefined
  /** The address space in which it was put, for one that changes the guest's code. */
  readonly cr3: bigint | undefined
}

/** What to insert. */
export interface PointRequest {
  readonly type: PointType
  readonly address: bigint
  readonly length: number
  /** May be of type `software` instead, where the debug registers are used up. */
  readonly orSoftware?: boolean
  /** For a software breakpoint: the CR3 under which its address leads to its code. Default: the present one. */
  readonly cr3?: bigint | undefined
}

const INT3 = 0xcc
const NONE: readonly Point[] = []

/**
 * The breakpoints and watchpoints of one session. Under emulation QEMU keeps them beside the guest, as many as wanted.
 * On KVM there are the four debug registers, and software breakpoints that QEMU writes into the guest's code.
 */
export class Breakpoints {
  /** What QEMU has changed in the guest's code. */
  readonly #patches: Patches
  readonly #onKvm: boolean
  readonly #memory: CodeMemory
  readonly #breakpoints = new Map<bigint, readonly Point[]>()
  readonly #watchpoints = new Map<bigint, readonly Point[]>()

  constructor(onKvm: boolean, memory: CodeMemory, patches: Patches) {
    this.#patches = patches
    this.#onKvm = onKvm
    this.#memory = memory
  }

  /** The breakpoints at an address. */
  at(address: bigint): readonly Point[] {
    return this.#breakpoints.get(address) ?? NONE
  }

  /** The watchpoints on what begins at an address. */
  watching(address: bigint): readonly Point[] {
    return this.#watchpoints.get(address) ?? NONE
  }

  /** Inserts what is not there yet. Throws `BUSY` when the debug registers are used up, `UNSUPPORTED` for a type. */
  insert(attached: Attached, request: PointRequest, user: Watcher): Point {
    const { type, address, length, orSoftware } = request
    const present = this.#kept(type)
      .get(address)
      ?.find(
        (point) => point.length === length && (point.type === type || (orSoftware && point.type === POINT.software)),
      )
    const point = present ?? this.#insert(attached, request)
    point.users.add(user)
    return point
  }

  #insert(attached: Attached, request: PointRequest): Point {
    const { address, length, orSoftware } = request
    if (request.type !== POINT.software) {
      const result = attached.gdb.insert(request.type, address, length)
      if (result === 'inserted') return this.#add(request, undefined)
      if (result === 'unsupported') throw unsupported(request)
      if (!orSoftware) throw usedUp(request)
    }
    return this.#insertSoftware(attached, { ...request, type: POINT.software })
  }

  /** One of those who asked for a point does so no more. */
  remove(attached: Attached, point: Point, user: Watcher): void {
    point.users.delete(user)
    if (point.users.size > 0) return
    const kept = this.#kept(point.type)
    const others = (kept.get(point.address) ?? []).filter((other) => other !== point)
    if (others.length > 0) kept.set(point.address, others)
    else kept.delete(point.address)
    this.takeOut(attached, point)
    if (point.patched !== undefined) this.#patches.remove(point.patched)
  }

  /** Takes a point out of the guest, to put it back soon: the vCPU has to get over it. */
  takeOut(attached: Attached, point: Point): void {
    const { type, address, length, patched, cr3 } = point
    if (patched === undefined) {
      attached.gdb.remove(type, address, length)
      return
    }
    const original = this.#patches.original(patched)
    this.#memory.inAddressSpace(attached, cr3, () => attached.gdb.remove(type, address, length))
    // Where the address leads elsewhere now, the stub leaves its byte behind (and may say OK).
    if (original !== undefined && this.#memory.readByte(patched) === INT3) this.#memory.writeByte(patched, original)
  }

  /** Puts it back. */
  putBack(attached: Attached, { type, address, length, patched, cr3 }: Point): void {
    const insert = () => attached.gdb.insert(type, address, length)
    const result = patched === undefined ? insert() : this.#memory.inAddressSpace(attached, cr3, insert)
    if (result !== 'inserted') {
      throw new MicrovmiError('HYPERVISOR', `the breakpoint at 0x${address.toString(16)} cannot be put back`)
    }
  }

  #insertSoftware(attached: Attached, request: PointRequest): Point {
    const { type, address, length, cr3 } = request
    if (!this.#onKvm) {
      if (attached.gdb.insert(type, address, length) !== 'inserted') throw unsupported(request)
      return this.#add(request, undefined)
    }
    const { patched, space } = this.#memory.locate(attached, address, cr3)
    const original = this.#memory.readByte(patched)
    const result = this.#memory.inAddressSpace(attached, space, () => attached.gdb.insert(type, address, length))
    if (result !== 'inserted') {
      throw new MicrovmiError('HYPERVISOR', `QEMU refuses a software breakpoint at 0x${address.toString(16)}`)
    }
    this.#patches.add(patched, original, INT3)
    return this.#add({ ...request, cr3: space }, patched)
  }

  #add({ type, address, length, cr3 }: PointRequest, patched: number | undefined): Point {
    const point: Point = { type, address, length, users: new Set(), patched, cr3 }
    const kept = this.#kept(type)
    kept.set(address, [...(kept.get(address) ?? []), point])
    return point
  }

  #kept(type: PointType): Map<bigint, readonly Point[]> {
    return type === POINT.software || type === POINT.hardware ? this.#breakpoints : this.#watchpoints
  }
}

function unsupported({ type, address }: PointRequest): MicrovmiError {
  return type === POINT.read
    ? new MicrovmiError('UNSUPPORTED', "KVM's debug registers cannot watch reads alone: ask for 'rw'")
    : new MicrovmiError(
        'UNSUPPORTED',
        `QEMU has no breakpoints of type ${type}, asked for at 0x${address.toString(16)}`,
      )
}

function usedUp({ type, address }: PointRequest): MicrovmiError {
  const what = type === POINT.hardware ? 'breakpoint' : 'watchpoint'
  return new MicrovmiError(
    'BUSY',
    `QEMU refuses the ${what} at 0x${address.toString(16)}: a vCPU has four debug registers, and all are used` +
      (type === POINT.hardware ? ". End another one, or ask for method: 'software'" : '. End another one'),
  )
}
