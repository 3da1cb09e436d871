import type { Reply } from '@microvmi/core/driver'
import { anyRequest } from './complete.ts'
import { DEBUG } from './exceptions.ts'
import { canonical } from './page-tables.ts'
import type { Processor } from './processor.ts'
import type { Occurrence } from './watches.ts'

/*
 * What is told of an instruction when it is done. A vCPU keeps these events and raises them, one after the other,
 * before its next instruction.
 */

/** DR6 of an int1: none of the conditions (Intel SDM volume 3B, section 17.2.3). */
export const DR6_NONE = 0xffff_0ff0n
/** DR6 after a step by the trap flag: BS. */
export const DR6_STEP = 0xffff_4ff0n

/** Whether a `singlestep` request is for a step of this vCPU. */
export function steps(
  request: { readonly vcpu?: number; readonly onlyAsked?: boolean },
  vcpu: number,
  asked: boolean,
): boolean {
  return (request.vcpu === undefined || request.vcpu === vcpu) && (asked || !request.onlyAsked)
}

/** One instruction was executed. A step that was asked for ends, and with it its view. */
export function tellStep(processor: Processor): void {
  const { vcpu, platform } = processor
  const asked = vcpu.step
  vcpu.step = undefined
  if (asked) processor.setView(platform.views.has(asked.view) ? asked.view : 0)
  const armed = platform.watches.matching('singlestep', (one) => steps(one, vcpu.number, asked !== undefined))
  if (armed.length === 0) return
  afterwards(processor, armed, () => ({ kind: 'singlestep', fields: { address: canonical(vcpu.rip) } }))
}

/** The watched accesses that the instruction has made. */
export function tellHits(processor: Processor): void {
  for (const { armed, address, access } of processor.vcpu.hits.splice(0)) {
    afterwards(processor, [armed], () => ({ kind: 'watchpoint', fields: { address: canonical(address), access } }))
  }
}

/** A debug exception of the guest. */
export function debugException(processor: Processor, dr6: bigint): void {
  const { vcpu, platform } = processor
  vcpu.attention = true
  vcpu.after.push(() => {
    const occurrence = { kind: 'debug', fields: { address: canonical(vcpu.rip), dr6 } } as const
    platform.note(vcpu, occurrence)
    const finish = (parts: Reply): void => {
      if (parts.deny) return
      vcpu.debug.dr6 = dr6
      processor.raise(DEBUG)
    }
    const armed = platform.watches.matching('debug', anyRequest)
    if (armed.length > 0) platform.hold(vcpu, occurrence, armed, 'complete', finish)
    finish({})
  })
}

/** Raises an event for those who are listening then still. */
function afterwards(processor: Processor, armed: readonly number[], occurrence: () => Occurrence): void {
  const { vcpu, platform } = processor
  vcpu.attention = true
  vcpu.after.push(() => {
    const listening = armed.filter((number) => platform.watches.has(number))
    if (listening.length > 0) platform.hold(vcpu, occurrence(), listening, 'repeat', () => {})
  })
}
