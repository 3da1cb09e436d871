import { eventTests } from './event-tests.testing.ts'

eventTests({ memoryMiB: 256 })
