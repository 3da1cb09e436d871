import { register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { xen } from './index.ts'

const lab = new ConformanceGuest({ type: 'pv', vcpus: 2 })

register(
  { driver: xen, slowness: 4, startup: 120_000, guest: () => lab.current() },
  { describe, test, after: afterAll },
)
afterAll(() => lab.stop())
