import { conformance } from '@microvmi/conformance'
import { prepared } from '@microvmi/lab-virtualbox'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { virtualboxFixture } from './fixture.testing.ts'

for (const options of [
  { vcpus: 2, debugger: 'native' },
  { vcpus: 1, debugger: 'none' },
] as const) {
  describe(`conformance of virtualbox, debugger ${options.debugger}`, () => {
    const fixture = virtualboxFixture(options)
    const suite = conformance(fixture)
    let unavailable: string | undefined
    beforeAll(async () => {
      const skipping = {
        skip(reason: string): never {
          unavailable = reason
          throw new Skipped()
        },
      }
      try {
        await prepared(skipping, async () => fixture.guest())
      } catch (error) {
        if (!(error instanceof Skipped)) throw error
      }
    })
    for (const { group, name, timeout, run } of suite) {
      test(`${group}: ${name}`, { timeout }, (context) => {
        if (unavailable !== undefined) context.skip(unavailable)
        return run(context)
      })
    }
    afterAll(async () => {
      await suite.close()
      await fixture[Symbol.asyncDispose]()
    })
  })
}

class Skipped extends Error {}
