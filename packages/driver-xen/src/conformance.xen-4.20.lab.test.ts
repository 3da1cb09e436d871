import { register } from '@microvmi/conformance'
import { afterAll, describe, expect, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { xen } from './index.ts'

const lab = new ConformanceGuest({ type: 'pvh', vcpus: 2 })

test('this is Xen 4.20', async () => {
  expect((await xen.probe()).details?.hypervisor).toMatch(/^Xen 4\.20\./)
})

register(
  { driver: xen, slowness: 4, startup: 120_000, guest: () => lab.current() },
  { describe, test, after: afterAll },
)
afterAll(() => lab.stop())
