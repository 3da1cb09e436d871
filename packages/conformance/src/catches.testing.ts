import type { ReplyParts } from '@microvmi/core'
import { mock } from '@microvmi/mock'
import { expect, test } from 'vitest'
import { type Mutation, part } from './break-driver.testing.ts'
import { brokenBreakpoints, brokenIntercept, brokenReply } from './broken-events.testing.ts'
import { brokenMemory } from './broken-memory.testing.ts'
import { brokenSessions } from './broken-sessions.testing.ts'
import { brokenState } from './broken-state.testing.ts'
import { type ConformanceCase, conformance, type TestedDriver } from './index.ts'
import { type MockFixtureOptions, mockFixture } from './mock-fixture.testing.ts'

/** What is broken fails early: it need not wait as long as a slow machine may. */
const HASTE = 0.15

/** Broken drivers by the full name of the case that catches them: but for those of each kind of event. */
export const named: Readonly<Record<string, Mutation>> = {
  ...brokenMemory,
  ...brokenState,
  ...brokenSessions,
  ...brokenBreakpoints,
}

/** Every case that there is. */
export const allCases: readonly ConformanceCase[] = conformance(mockFixture()).cases

/** The group and name of a case. */
export function nameOf({ group, name }: ConformanceCase): string {
  return `${group}: ${name}`
}

/** Whether a case is one of those that every kind of event has. */
export function isOfKind({ group }: ConformanceCase): boolean {
  return /^(events|replies): /.test(group)
}

/** The broken driver that a case has to catch. */
export function mutationFor(one: ConformanceCase): Mutation | undefined {
  const [, family, kind = ''] = /^(events|replies): (\w+)$/.exec(one.group) ?? []
  if (family === 'events') return brokenIntercept(kind, one.name)
  if (family === 'replies') return brokenReply(kind, one.name.replace(' shows', '') as keyof ReplyParts)
  return named[nameOf(one)]
}

/** A test that the case fails with its broken driver, and says why. */
export function testCatches(one: ConformanceCase): void {
  const mutation = mutationFor(one)
  if (!mutation) return
  test(`${nameOf(one)}: ${mutation.how}`, { timeout: 20_000 }, async () => {
    const broken = sameCase(one, mutation.breaks(mock))
    const error: unknown = await broken.run().then(
      () => 'the case passes',
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(Error)
    expect((error as Error).message).toMatch(mutation.says)
  })
}

/** A driver that cannot give the TSC, for a fixture that knows. */
export const withoutTsc: TestedDriver = part('registers', (registers) => ({
  read: (vcpu) => ({ ...registers.read(vcpu), tsc: undefined }),
  writable: new Set([...(registers.writable ?? [])].filter((name) => name !== 'tsc')),
}))(mock)

function sameCase(one: ConformanceCase, driver: TestedDriver): ConformanceCase {
  const options: MockFixtureOptions = { driver, slowness: HASTE, known: (guest) => ({ ...guest, ...absentTsc(one) }) }
  const found = conformance(mockFixture(options)).cases.find((other) => nameOf(other) === nameOf(one))
  if (!found) throw new Error(`the broken driver has no case '${nameOf(one)}'`)
  return found
}

function absentTsc(one: ConformanceCase) {
  return one.name === 'what this driver cannot give is undefined' ? { registers: { absent: ['tsc'] as const } } : {}
}
