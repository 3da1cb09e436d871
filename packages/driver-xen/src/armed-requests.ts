import type { BackendEvent, EventKind, InterceptRequest } from '@microvmi/core/driver'
import type { Abi } from './abi/versions.ts'
import { FLAG, pagingRegistersOf, registersOf, ripOf, SLOT } from './abi/vm-event.ts'
import { IS_AHEAD } from './answers.ts'
import type { Breakpoints } from './breakpoints.ts'
import type { RequestQueue, Slot } from './request-queue.ts'
import { eventFields, isWanted, kindOf, physicalOf } from './requests.ts'
import type { XenViews } from './views.ts'

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
  eventOf(
    slot: Slot,
    {
      abi,
      breakpoints,
      views,
      queue,
    }: {
      readonly abi: Abi
      readonly breakpoints: Breakpoints
      readonly views: XenViews
      readonly queue: RequestQueue
    },
  ): BackendEvent | undefined {
    const rip = ripOf(slot, abi)
    const kind = kindOf(slot, () => breakpoints.has(physicalOf(slot, rip)))
    if (kind === undefined) return undefined
    const vcpu = slot.getUint32(SLOT.vcpu, true)
    const fields = eventFields(kind, slot, rip, abi, (view) => (views.isOn ? views.named(view) : undefined))
    const isAskedStep = queue.isOfAskedStep(slot)
    const armed =
      kind === 'breakpoint'
        ? breakpoints.at(physicalOf(slot, rip), rip, pagingRegistersOf(slot, abi).cr3)
        : this.#wanting(kind, (request) => isWanted(request, fields) && wantsStep(request, vcpu, isAskedStep))
    if (armed.length === 0) return undefined
    const isPaused = (slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused) !== 0
    return {
      kind,
      armed,
      vcpu,
      stops: isPaused ? 'vcpu' : 'none',
      complete: this.#isComplete(kind, armed, views.isOn || queue.vcpus === 1),
      ...(IS_AHEAD.has(kind) ? { registers: () => registersOf(slot, abi) } : {}),
      fields,
    } as BackendEvent
  }

  /** @param alone whether nobody else uses a page while a vCPU makes an access to it */
  #isComplete(kind: EventKind, armed: readonly number[], alone: boolean): boolean {
    // Two ports are the guest's own (settings.ts).
    const isOfOnePort = (request: InterceptRequest | undefined) => request?.kind === 'io' && request.port !== undefined
    if (kind === 'io') return armed.every((number) => isOfOnePort(this.get(number)))
    return kind !== 'memory' || alone
  }

  #wanting(kind: EventKind, wants: (request: InterceptRequest) => boolean): number[] {
    const numbers: number[] = []
    for (const [number, request] of this) if (request.kind === kind && wants(request)) numbers.push(number)
    return numbers
  }
}

function wantsStep(request: InterceptRequest, vcpu: number, isAskedStep: boolean): boolean {
  if (request.kind !== 'singlestep') return true
  return (request.vcpu === undefined || request.vcpu === vcpu) && (request.onlyAsked !== true || isAskedStep)
}
