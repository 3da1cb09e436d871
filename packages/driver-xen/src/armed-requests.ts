import type { BackendEvent, EventKind, InterceptRequest } from '@microvmi/core/driver'
import type { Abi } from './abi/versions.ts'
import { FLAG, pagingRegistersOf, registersOf, ripOf, SLOT } from './abi/vm-event.ts'
import { IS_AHEAD } from './answers.ts'
import type { Breakpoints } from './breakpoints.ts'
import type { Slot } from './request-queue.ts'
import { eventFields, isWanted, kindOf, physicalOf } from './requests.ts'
import type { XenViews } from './views.ts'

/** What core hears of a request, and the request. */
export type XenEvent = BackendEvent & { readonly slot: Slot }

/** What tells what a request is about. */
export interface EventSource {
  readonly abi: Abi
  readonly breakpoints: Breakpoints
  readonly views: XenViews
  readonly queue: { readonly vcpus: number }
}

/** What is armed, under core's numbers, and which of Xen's requests it is about. */
export class ArmedRequests extends Map<number, InterceptRequest> {
  get requests(): InterceptRequest[] {
    return [...this.values()]
  }

  /** Whether somebody listens to a vCPU's steps: to all of them, or at least to those that replies ask for. */
  hearsStepsOf(vcpu: number, isAsked: boolean): boolean {
    for (const request of this.values()) {
      if (request.kind !== 'singlestep' || (request.onlyAsked === true && !isAsked)) continue
      if (request.vcpu === undefined || request.vcpu === vcpu) return true
    }
    return false
  }

  /** What core hears of a request of Xen's; `undefined` where nobody wants it. */
  eventOf(slot: Slot, source: EventSource): XenEvent | undefined {
    const { abi, breakpoints, views } = source
    const kind = kindOf(slot, abi, breakpoints)
    if (kind === undefined) return undefined
    const fields = eventFields(kind, slot, abi, views)
    const armed = kind === 'breakpoint' ? this.#atBreakpoint(slot, source) : this.#wanting(kind, slot, fields)
    if (armed.length === 0) return undefined
    return {
      kind,
      armed,
      vcpu: slot.getUint32(SLOT.vcpu, true),
      stops: (slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused) !== 0 ? 'vcpu' : 'none',
      complete: this.#isComplete(kind, armed, source),
      registers: IS_AHEAD.has(kind) ? () => registersOf(slot, abi) : undefined,
      fields,
      slot,
    } as XenEvent
  }

  #isComplete(kind: EventKind, armed: readonly number[], { views, queue }: EventSource): boolean {
    if (kind === 'io') return armed.every((number) => isOfOnePort(this.get(number)))
    // Without views a page is open to all while one vCPU steps over an access to it.
    return kind !== 'memory' || views.isOn || queue.vcpus === 1
  }

  #atBreakpoint(slot: Slot, { abi, breakpoints }: EventSource): number[] {
    const rip = ripOf(slot, abi)
    return breakpoints.at(physicalOf(slot, rip), rip, pagingRegistersOf(slot, abi).cr3)
  }

  #wanting(kind: EventKind, slot: Slot, fields: BackendEvent['fields']): number[] {
    const numbers: number[] = []
    for (const [number, request] of this) {
      if (request.kind === kind && isWanted(request, fields) && wantsStep(request, slot)) numbers.push(number)
    }
    return numbers
  }
}

function wantsStep(request: InterceptRequest, slot: Slot): boolean {
  if (request.kind !== 'singlestep') return true
  if (request.vcpu !== undefined && request.vcpu !== slot.getUint32(SLOT.vcpu, true)) return false
  return request.onlyAsked !== true || slot.step?.isReported === true
}

/** Of all ports two are missing, which are the guest's own (settings.ts). */
function isOfOnePort(request: InterceptRequest | undefined): boolean {
  return request?.kind === 'io' && request.port !== undefined
}
