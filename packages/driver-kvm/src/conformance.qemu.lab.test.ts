import { register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { kvm } from './index.ts'

describe.each([
  ['shared RAM', { ram: 'file' }],
  ['private RAM', { ram: 'private' }],
] as const)('%s', (_, options) => {
  const lab = new ConformanceGuest({ ...options, memoryMiB: 256 }, { msrs: true })
  register(
    { driver: kvm, slowness: 4, startup: 60_000, guest: () => lab.current() },
    { describe, test, after: afterAll },
  )
  afterAll(() => lab.stop())
})
