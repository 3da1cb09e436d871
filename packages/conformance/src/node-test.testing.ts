import { after, describe, test } from 'node:test'
import { mock } from '@microvmi/mock'
import { register } from './index.ts'
import { mockFixture } from './mock-fixture.testing.ts'

// Run by conformance.test.ts in a process of its own.
register(
  mockFixture({
    driver: { ...mock, promises: [], possible: ['memory.read', 'memory.regions'] },
    guest: { lacking: mock.possible.filter((name) => name !== 'memory.read' && name !== 'memory.regions') },
    known: ({ vm, memory }) => ({ vm, ...(memory ? { memory: { known: memory.known } } : {}) }),
  }),
  { describe, test, after },
)
