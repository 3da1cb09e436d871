import { type InterceptRequest, MicrovmiError, PAGE_SIZE, pageFrame } from '@microvmi/core/driver'
import type { Placement } from './breakpoints.ts'
import { ACCESS, BREAKPOINT } from './layout.ts'

/** A request and the server's breakpoint for it: one breakpoint may serve several requests. */
export interface Armed {
  readonly request: InterceptRequest
  readonly placement: Placement
  /** The server's number. */
  readonly id: number
}

/** The armed requests, by core's numbers. */
export class ArmedRequests {
  readonly #armed = new Map<number, Armed>()

  get size(): number {
    return this.#armed.size
  }

  get(number: number): Armed | undefined {
    return this.#armed.get(number)
  }

  add(number: number, one: Armed): void {
    this.#armed.set(number, one)
  }

  remove(number: number): void {
    this.#armed.delete(number)
  }

  clear(): void {
    this.#armed.clear()
  }

  /** The server's breakpoint that serves a placement already: of two soft ones at one address it makes one itself. */
  idFor(placement: Placement): number | undefined {
    for (const { placement: other, id } of this.#armed.values()) if (isSame(other, placement)) return id
    return undefined
  }

  /** Whether any request uses this breakpoint of the server's. */
  uses(id: number): boolean {
    return [...this.#armed.values()].some((one) => one.id === id)
  }

  has(type: number): boolean {
    return [...this.#armed.values()].some(({ placement }) => placement.type === type)
  }

  /** The numbers of those of a type at an address. */
  at(type: number, address: number): number[] {
    return this.#numbers(({ placement }) => placement.type === type && placement.address === address)
  }

  /** The numbers of those that watch a physical address being executed. */
  executing(physical: number): number[] {
    return this.#numbers(({ placement: { type, access, address, size } }) => {
      const isWatched = type === BREAKPOINT.page && (access & ACCESS.execute) !== 0
      return isWatched && physical >= address && physical < address + size
    })
  }

  /** The one page whose reads or writes are watched, and the numbers of the requests. */
  dataPage(): { readonly placement: Placement; readonly numbers: number[] } | undefined {
    const numbers = this.#numbers(({ placement }) => isDataPage(placement))
    const placement = this.#armed.get(numbers[0] ?? -1)?.placement
    return placement && { placement, numbers }
  }

  /** Of the numbers, those whose request is for this address in this address space. */
  matching(numbers: readonly number[], rip: bigint, cr3: bigint): number[] {
    return numbers.filter((number) => {
      const request = this.#armed.get(number)?.request
      if (request?.kind !== 'breakpoint') return false
      if ('address' in request && request.address !== rip) return false
      return request.addressSpace === undefined || pageFrame(request.addressSpace) === pageFrame(cr3)
    })
  }

  /** Of the numbers, those whose filter lets this change through. */
  changing(numbers: readonly number[], old: bigint | undefined, now: bigint): number[] {
    return numbers.filter((number) => {
      const request = this.#armed.get(number)?.request
      if (request?.kind === 'cr' && request.mask !== undefined) return (((old ?? 0n) ^ now) & request.mask) !== 0n
      return (request?.kind !== 'cr' && request?.kind !== 'msr') || request.onChange === false || old !== now
    })
  }

  /** Throws for a placement whose hits could not be told from another's. */
  checkUnambiguous(placement: Placement): void {
    if (!isDataPage(placement)) return
    const untold = 'FDP does not tell which page was read or written'
    if (placement.size !== PAGE_SIZE) throw new MicrovmiError('UNSUPPORTED', `${untold}: watch one page at a time`)
    for (const { placement: other } of this.#armed.values()) {
      if (isDataPage(other) && !isSame(other, placement)) {
        throw new MicrovmiError('BUSY', `${untold}: another one is watched already`)
      }
    }
  }

  #numbers(fits: (one: Armed) => boolean): number[] {
    return [...this.#armed].filter(([, one]) => fits(one)).map(([number]) => number)
  }
}

function isSame(one: Placement, other: Placement): boolean {
  return (
    one.type === other.type && one.address === other.address && one.size === other.size && one.access === other.access
  )
}

function isDataPage({ type, access }: Placement): boolean {
  return type === BREAKPOINT.page && (access & (ACCESS.read | ACCESS.write)) !== 0
}
