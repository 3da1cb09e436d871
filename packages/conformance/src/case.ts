import { type Capability, MicrovmiError, type VmBase } from '@microvmi/core'
import type { Behaviour } from './behaviour.ts'
import { Skipped } from './failure.ts'
import type { Fixture } from './fixture.ts'
import { paceOf, within } from './pace.ts'
import type { Sessions, Share } from './sessions.ts'
import { demandAny, Trial } from './trial.ts'

/** What of a test runner's context is used: vitest's and node:test's both have it. */
export interface Skipping {
  skip(reason: string): unknown
}

/** One case of the contract, bound to a fixture. */
export interface ConformanceCase {
  /** The heading that it belongs under. */
  readonly group: string
  /** Unique within its group. */
  readonly name: string
  /** The capabilities that it needs. */
  readonly needs: readonly Capability[]
  /** Milliseconds after which a runner may give it up. It ends by itself before. */
  readonly timeout: number
  /**
   * Runs it, and rejects with what the driver does wrong. Where the VM lacks what it needs, or the fixture does not
   * know enough, it calls `context.skip` with the reason; without a context it rejects with `Skipped`.
   */
  run(context?: Skipping): Promise<void>
}

/** Makes a case of a behaviour. */
export function bind(behaviour: Behaviour, fixture: Fixture, sessions: Sessions): ConformanceCase {
  const { group, name, needs } = behaviour
  const pace = paceOf(fixture.slowness ?? 1)
  const run = async (context?: Skipping): Promise<void> => {
    try {
      await runOnce(behaviour, fixture, sessions)
    } catch (error) {
      if (!(error instanceof Skipped) || !context) throw error
      context.skip(error.reason)
    }
  }
  return { group, name, needs, timeout: sessions.startup + pace.limit + 4 * pace.patience, run }
}

async function runOnce(behaviour: Behaviour, fixture: Fixture, sessions: Sessions): Promise<void> {
  const pace = paceOf(fixture.slowness ?? 1)
  const guest = await within(Promise.resolve(fixture.guest()), sessions.startup, 'Fixture.guest()')
  const failures: unknown[] = []
  let share: Share | undefined
  let trial: Trial<Capability> | undefined
  try {
    share = await sessions.take(behaviour.session, guest)
    if (share.vm) requireAll(share.vm, behaviour.needs)
    trial = new Trial(fixture.driver, guest, pace, share.vm)
    await within(Promise.resolve(behaviour.run(trial)), pace.limit, `the case '${behaviour.name}'`)
  } catch (error) {
    failures.push(error)
  }
  const endings = [
    () => trial?.end(),
    () => share?.giveBack(failures.some((failure) => !(failure instanceof Skipped))),
    () => fixture.after?.(guest),
  ]
  for (const ending of endings) {
    try {
      await within(Promise.resolve(ending()), pace.patience * 4, 'ending a case')
    } catch (error) {
      failures.push(error)
    }
  }
  // What went wrong in the case is the cause of what went wrong behind it; being skipped is no excuse for that.
  const [first] = [...failures.filter((failure) => !(failure instanceof Skipped)), ...failures]
  if (first !== undefined) throw first
}

/** Skips, with the driver's own reason, for the first capability that the VM lacks. */
function requireAll(vm: VmBase, needs: readonly Capability[]): void {
  for (const capability of needs) {
    try {
      demandAny(vm, capability)
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'UNSUPPORTED') throw new Skipped(error.message)
      throw error
    }
  }
}
