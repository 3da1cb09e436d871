import type { ConformanceCase, Skipping } from './case.ts'
import { type Conformance, conformance } from './conformance.ts'
import type { Fixture } from './fixture.ts'

/** What of a test runner is used. vitest and node:test both fit, `afterAll` and `after` being the same. */
export interface Runner {
  describe(name: string, define: () => void): unknown
  test(name: string, options: { readonly timeout: number }, run: (context: Skipping) => Promise<void>): unknown
  after(close: () => Promise<void>): unknown
}

/**
 * Registers the suite with a test runner, under one heading a group. A case that cannot be run here is skipped by the
 * runner, with the reason.
 *
 * @example
 * ```ts
 * import { type Fixture, register } from '@microvmi/conformance'
 * import { after, describe, test } from 'node:test'
 *
 * declare const fixture: Fixture
 * register(fixture, { describe, test, after })
 * ```
 */
export function register(fixture: Fixture, { describe, test, after }: Runner): Conformance {
  const suite = conformance(fixture)
  const groups = new Map<string, ConformanceCase[]>()
  for (const one of suite) groups.set(one.group, [...(groups.get(one.group) ?? []), one])
  describe(`conformance of ${fixture.driver.scheme}`, () => {
    for (const [group, cases] of groups) {
      describe(group, () => {
        for (const { name, timeout, run } of cases) test(name, { timeout }, (context) => run(context))
      })
    }
    after(() => suite.close())
  })
  return suite
}
