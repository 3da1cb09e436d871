import type { EventKind, EventKinds } from '@microvmi/core'

const ANY_STOP = ['registers', 'view', 'inject'] as const

/** Core's kinds of events, and which parts of a reply fit each. */
const PARTS = {
  cr: [...ANY_STOP, 'deny', 'value'],
  msr: [...ANY_STOP, 'deny', 'value'],
  breakpoint: [...ANY_STOP, 'step', 'emulate', 'reinject'],
  int3: [...ANY_STOP, 'step', 'emulate', 'reinject', 'deny'],
  watchpoint: [...ANY_STOP, 'step'],
  memory: [...ANY_STOP, 'deny', 'step', 'emulate'],
  singlestep: [...ANY_STOP, 'step'],
  cpuid: ANY_STOP,
  descriptor: [...ANY_STOP, 'deny', 'emulate'],
  debug: [...ANY_STOP, 'step', 'reinject', 'deny'],
  hypercall: ANY_STOP,
  privcall: ANY_STOP,
  io: [...ANY_STOP, 'deny', 'emulate'],
  interrupt: [...ANY_STOP, 'deny', 'reinject'],
  lifecycle: [],
} as const satisfies { readonly [K in EventKind]?: readonly EventKinds[K]['parts'][] }

/** Kinds whose requests ask for all there is. */
const UNFILTERED: ReadonlySet<string> = new Set(['int3', 'descriptor', 'debug', 'hypercall', 'privcall', 'lifecycle'])
/** Kinds whose events never stop anything. */
const REPORTS: ReadonlySet<string> = new Set(['lifecycle'])

/** Core's kinds of events. */
export const KINDS: readonly string[] = Object.keys(PARTS)

/** The parts of a reply that fit a kind. None is known for kinds that others have added. */
export function partsOf(kind: string): readonly string[] {
  const parts: Readonly<Record<string, readonly string[] | undefined>> = PARTS
  return parts[kind] ?? []
}

/** Whether a request for a kind can ask for some of its events only. */
export function hasFilter(kind: string): boolean {
  return !UNFILTERED.has(kind)
}

/** Whether an event of a kind can wait for an answer. */
export function canStop(kind: string): boolean {
  return !REPORTS.has(kind)
}
