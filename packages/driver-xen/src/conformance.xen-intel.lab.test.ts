import { register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { ConformanceGuest } from './conformance-guest.testing.ts'
import { xen } from './index.ts'

const lab = new ConformanceGuest({ type: 'pvh', configuration: 'altp2m = "external"' })

// dom0's clock runs about twice as fast as its processor.
register(
  { driver: xen, slowness: 8, startup: 240_000, guest: () => lab.current() },
  { describe, test, after: afterAll },
)
afterAll(() => lab.stop())
