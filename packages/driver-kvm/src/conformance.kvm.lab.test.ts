import { register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { kvm } from './index.ts'

const lab = new ConformanceGuest({ machine: 'pc', memoryMiB: 128 }, { msrs: false })

register(
  { driver: kvm, slowness: 2, startup: 60_000, reuse: true, guest: () => lab.current() },
  { describe, test, after: afterAll },
)
afterAll(() => lab.stop())
