import type { Capability } from '@microvmi/core'
import type { Behaviour } from './behaviour.ts'
import { allocation } from './behaviours/allocation.ts'
import { breakpoints } from './behaviours/breakpoints.ts'
import { closing } from './behaviours/closing.ts'
import { holes } from './behaviours/holes.ts'
import { injection } from './behaviours/injection.ts'
import { intercepts } from './behaviours/intercepts.ts'
import { knownMemory } from './behaviours/known-memory.ts'
import { msrs } from './behaviours/msrs.ts'
import { opening } from './behaviours/opening.ts'
import { pageAccess } from './behaviours/page-access.ts'
import { pauses, runStates } from './behaviours/pauses.ts'
import { pieces } from './behaviours/pieces.ts'
import { regions } from './behaviours/regions.ts'
import { registerWrites } from './behaviours/register-writes.ts'
import { registers } from './behaviours/registers.ts'
import { replies } from './behaviours/replies.ts'
import { scatteredReads } from './behaviours/scattered-reads.ts'
import { vanishing } from './behaviours/vanishing.ts'
import { views } from './behaviours/views.ts'
import { windows } from './behaviours/windows.ts'
import { writes } from './behaviours/writes.ts'
import { bind, type ConformanceCase } from './case.ts'
import type { Fixture } from './fixture.ts'
import { KINDS } from './kinds.ts'
import { Sessions } from './sessions.ts'

/** The suite for one fixture. */
export interface Conformance extends Iterable<ConformanceCase>, AsyncDisposable {
  readonly cases: readonly ConformanceCase[]
  /** Closes the session that `reuse` keeps. To be called behind the last case. */
  close(): Promise<void>
}

/**
 * The contract as test cases. Which there are depends on what the driver declares, not on the guest: so they can be
 * registered before the guest is brought up.
 *
 * @example
 * ```ts
 * import { conformance, type Fixture } from '@microvmi/conformance'
 *
 * declare const fixture: Fixture
 * await using suite = conformance(fixture)
 * for (const { group, name, run } of suite) {
 *   await run({ skip: (reason) => console.log(`${group}: ${name}: skipped, ${reason}`) })
 * }
 * ```
 */
export function conformance(fixture: Fixture): Conformance {
  const sessions = new Sessions(fixture)
  const cases = behavioursFor(fixture).map((behaviour) => bind(behaviour, fixture, sessions))
  const close = () => sessions.close()
  return { cases, close, [Symbol.iterator]: () => cases[Symbol.iterator](), [Symbol.asyncDispose]: close }
}

/** What is asked of this driver. For a kind of event that it does not declare, one case stands for all. */
function behavioursFor({ driver }: Fixture): Behaviour[] {
  const declared = new Set<Capability>([...driver.promises, ...driver.possible])
  const kinds = kindsOf(declared)
  return [
    ...opening,
    ...knownMemory,
    ...holes,
    ...scatteredReads,
    ...writes,
    ...regions,
    ...pieces,
    ...windows,
    ...pageAccess,
    ...allocation,
    ...registers,
    ...registerWrites,
    ...msrs,
    ...pauses,
    ...runStates,
    ...kinds.flatMap((kind) => {
      const all = intercepts(kind)
      return declared.has(`events.${kind}` as Capability) ? [...all, ...replies(kind, declared)] : all.slice(0, 1)
    }),
    ...breakpoints,
    ...views,
    ...injection,
    ...closing,
    ...vanishing(kinds),
  ]
}

/** Core's kinds of events, and those that the driver adds. */
function kindsOf(declared: ReadonlySet<Capability>): string[] {
  const names = [...declared].filter((name) => name.startsWith('events.')).map((name) => name.slice('events.'.length))
  return [...new Set([...KINDS, ...names])]
}
