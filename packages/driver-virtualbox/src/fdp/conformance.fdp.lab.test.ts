import { conformance } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { fdpFixture } from './fixture.testing.ts'
import { hindrance, titled } from './server.testing.ts'

/** The patched VirtualBox crashes when a general register of another vCPU than 0 is written: the driver refuses that. */
const OF_OTHER_VCPUS = new Set(['what is written reads back', 'the other vCPUs keep theirs'])

/** With one vCPU, what needs it; with two, everything; and again while a session in another process reads all the time. */
const ROUNDS = [
  { title: '1 vCPU', vcpus: 1, inCompany: false, only: 'registers: writes' },
  { title: '2 vCPUs', vcpus: 2, inCompany: false, only: undefined },
  { title: '2 vCPUs, beside another session', vcpus: 2, inCompany: true, only: undefined },
]

for (const { title, vcpus, inCompany, only } of ROUNDS) {
  const fixture = fdpFixture({ vcpus }, inCompany)
  const suite = conformance(fixture)
  const cases = suite.cases.filter(({ group }) => only === undefined || group === only)
  describe.skipIf(hindrance)(titled(`conformance of fdp, ${title}`), () => {
    for (const { group, name, timeout, run } of cases) {
      test(`${group}: ${name}`, { timeout }, (context) => {
        if (vcpus > 1 && group === 'registers: writes' && OF_OTHER_VCPUS.has(name)) {
          context.skip('FDP has no way to write general registers of other vCPUs than 0')
        }
        return run(context)
      })
    }
    afterAll(async () => {
      await suite.close()
      await fixture[Symbol.asyncDispose]()
    })
  })
}
