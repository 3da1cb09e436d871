import type { EventKinds, Reply } from '@microvmi/core/driver'
import type { Processor } from './processor.ts'
import { TRAP } from './vcpu.ts'
import type { Armed, Occurrence } from './watches.ts'

/** Kinds of instructions that end with the answer to their event. */
type Completing = 'cr' | 'msr' | 'cpuid' | 'descriptor' | 'hypercall' | 'privcall' | 'io'

/** For kinds whose requests have no filter. */
export function anyRequest(): boolean {
  return true
}

/**
 * Ends an instruction of `length` bytes, once those who wait for it have answered. It has made all its accesses to
 * memory: `effect` is what is left of it, and does not happen when it is denied.
 */
export function complete<K extends Completing>(
  processor: Processor,
  kind: K,
  length: number,
  fields: EventKinds[K]['event'],
  fits: (request: Armed<K>['request']) => boolean,
  effect: (parts: Reply) => void = () => {},
): void {
  const { vcpu, platform } = processor
  // Kind and fields belong together by the parameter K, which a union cannot say.
  const occurrence = { kind, fields } as Occurrence
  platform.note(vcpu, occurrence)
  const finish = (parts: Reply): void => {
    if (!parts.deny) effect(parts)
    vcpu.rip += length
  }
  const waiting: number[] = []
  const told: number[] = []
  for (const { number, request } of platform.watches.of(kind) ?? []) {
    if (fits(request)) ('asynchronous' in request && request.asynchronous ? told : waiting).push(number)
  }
  if (told.length > 0) platform.report(vcpu, occurrence, told)
  if (waiting.length > 0) {
    const trapped = (vcpu.flags & TRAP) !== 0
    platform.hold(vcpu, occurrence, waiting, 'complete', (parts) => {
      finish(parts)
      processor.retired(trapped)
    })
  }
  finish({})
}

/** The bytes that a reply gives in place of what the guest would have read. */
export function dataOf({ emulate }: Reply): Uint8Array | undefined {
  return typeof emulate === 'object' && 'data' in emulate ? emulate.data : undefined
}
