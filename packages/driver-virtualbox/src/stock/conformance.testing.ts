import { conformance } from '@microvmi/conformance'
import { prepared } from '@microvmi/lab-virtualbox'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { type LabVm, virtualboxFixture } from './fixture.testing.ts'

/** The conformance suite on a real VM. Where the lab cannot come up, every case is skipped with that reason. */
export function conformsOn(vm: LabVm): void {
  describe(`conformance of virtualbox, ${vm.vcpus} vCPUs, debugger ${vm.debugger}`, () => {
    const fixture = virtualboxFixture(vm)
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
