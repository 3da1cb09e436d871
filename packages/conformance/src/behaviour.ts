import type { Capability } from '@microvmi/core'
import type { Trial } from './trial.ts'

/** One thing that the contract asks of a driver: a case before it is bound to a fixture. */
export interface Behaviour {
  /** What it belongs to: the heading it is reported under. */
  readonly group: string
  /** Unique within its group. */
  readonly name: string
  /** The capabilities that the VM must have. */
  readonly needs: readonly Capability[]
  /** Which session it runs in: one that others may have used, one of its own that it may close, or none yet. */
  readonly session: 'any' | 'own' | 'none'
  run(trial: Trial<Capability>): void | Promise<void>
}

/** How behaviours of one group are defined. */
export type Define = <const Needs extends readonly Capability[]>(
  name: string,
  needs: Needs,
  run: (trial: Trial<Needs[number]>) => void | Promise<void>,
  options?: { readonly session: Behaviour['session'] },
) => void

/** Collects the behaviours of a group, each typed by the capabilities that it needs. */
export function behaviours(group: string, describe: (define: Define) => void): readonly Behaviour[] {
  const found: Behaviour[] = []
  describe((name, needs, run, { session } = { session: 'any' }) => {
    found.push({
      group,
      name,
      needs,
      session,
      // A trial runs only on a Vm that has what its behaviour needs; its type cannot know which behaviour that is.
      run: (trial) => run(trial as unknown as Trial<(typeof needs)[number]>),
    })
  })
  return found
}
