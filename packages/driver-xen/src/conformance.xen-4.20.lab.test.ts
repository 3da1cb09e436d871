import { register } from '@microvmi/conformance'
import { afterAll, describe, expect, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { xen } from './index.ts'

const lab = new ConformanceGuest({ type: 'pvh', vcpus: 2 })

test('this is Xen 4.20', async () => {
  const probe = await xen.probe()
  expect(probe).toMatchObject({ usable: true, details: { hypervisor: expect.stringMatching(/^Xen 4\.20\./) } })
})

register(
  { driver: xen, slowness: 4, startup: 120_000, guest: () => lab.current() },
  { describe, test, after: afterAll },
)
afterAll(() => lab.stop())
