import { eventTests } from './event-tests.testing.ts'

eventTests({ memoryMiB: 128, machine: 'pc' }, { reboots: false })
