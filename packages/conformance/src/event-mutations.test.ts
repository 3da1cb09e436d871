import { describe } from 'vitest'
import { allCases, isOfKind, testCatches } from './catches.testing.ts'

describe.concurrent('each case about events catches a driver that is broken', () => {
  for (const one of allCases) if (isOfKind(one)) testCatches(one)
})
