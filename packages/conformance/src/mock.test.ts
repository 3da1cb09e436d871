import { afterAll, describe, expect, test } from 'vitest'
import { withoutTsc } from './catches.testing.ts'
import { conformance, register, type Skipping } from './index.ts'
import { mockFixture } from './mock-fixture.testing.ts'

/** The mock is as fast as a guest can be. */
const PACE = 0.8

// Each case has a guest of its own: they need not wait for each other.
register(
  mockFixture({
    slowness: PACE,
    driver: withoutTsc,
    known: (guest) => ({ ...guest, registers: { ...guest.registers, absent: ['tsc'] } }),
  }),
  { describe: describe.concurrent, test, after: afterAll },
)

/** Runs every case, and tells what was skipped and why. */
async function runAll(
  suite: ReturnType<typeof conformance>,
): Promise<{ passed: string[]; skipped: Map<string, string> }> {
  const passed: string[] = []
  const skipped = new Map<string, string>()
  for (const { group, name, run } of suite) {
    const full = `${group}: ${name}`
    const context: Skipping = { skip: (reason) => skipped.set(full, reason) }
    await run(context)
    if (!skipped.has(full)) passed.push(full)
  }
  await suite.close()
  return { passed, skipped }
}

test('one vCPU, events that stop the whole VM, and one session for all', { timeout: 60_000 }, async () => {
  const fixture = mockFixture({ slowness: PACE, guest: { vcpus: 1, stops: 'vm', lacking: OTHER_EVENTS } })
  const guest = await fixture.guest()
  const suite = conformance({ ...fixture, guest: () => guest, reuse: true, after: () => undefined })
  const cases = suite.cases.filter(({ group }) => !/goes away|^replies/.test(group))
  const { passed, skipped } = await runAll({ ...suite, [Symbol.iterator]: () => cases[Symbol.iterator]() })
  fixture.after?.(guest)
  expect(passed.length).toBeGreaterThan(80)
  const reasons = new Set([...skipped.values()].filter((reason) => !reason.includes('this guest was made without it')))
  expect([...reasons].sort()).toEqual(['the fixture leaves out Guest.registers.absent', 'the guest has one vCPU'])
})

test('a guest that can only be read, and stands still', { timeout: 30_000 }, async () => {
  const fixture = mockFixture({
    slowness: PACE,
    guest: { lacking: [...ALL_BUT_READING], clock: 'manual' },
    known: ({ vm, memory }) => ({ vm, still: true, ...(memory ? { memory } : {}) }),
  })
  const { passed, skipped } = await runAll(conformance(fixture))
  expect(passed).toContain('memory: reads: a long read equals its parts')
  expect(passed).toContain('registers: reads: CR3 points into memory')
  expect(skipped.get('pause: fifty pauses in a row')).toMatch(/^mock:conformance \d+ lacks pause: this guest was made/)
  expect(skipped.get('opening: a second session beside the first')).toBe('the fixture leaves out Guest.sessions')
  expect(skipped.get('events: cr: a handler takes the events')).toMatch(/lacks events.cr/)
  expect(skipped.get('a VM that goes away: every call says so')).toBe('the fixture leaves out Guest.vanish()')
})

const OTHER_EVENTS = [
  'events.msr',
  'events.int3',
  'events.watchpoint',
  'events.memory',
  'events.singlestep',
  'events.cpuid',
  'events.descriptor',
  'events.debug',
  'events.hypercall',
  'events.privcall',
  'events.io',
  'events.interrupt',
] as const

const ALL_BUT_READING = [
  ...OTHER_EVENTS,
  'events.cr',
  'events.breakpoint',
  'events.lifecycle',
  'memory.write',
  'memory.map',
  'memory.access',
  'memory.alloc',
  'registers.write',
  'msr.read',
  'msr.write',
  'pause',
  'inject',
  'views',
] as const
