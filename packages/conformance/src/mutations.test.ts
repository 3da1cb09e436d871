import type { Capability } from '@microvmi/core'
import { mock } from '@microvmi/mock'
import { describe, expect, test } from 'vitest'
import { allCases, isOfKind, mutationFor, named, nameOf, testCatches } from './catches.testing.ts'

test('there is a broken driver for every case, and none for a case that is not there', () => {
  expect(allCases.filter((one) => !mutationFor(one)).map(nameOf)).toEqual([])
  const names = new Set(allCases.map(nameOf))
  expect(names.size).toBe(allCases.length)
  expect(Object.keys(named).filter((name) => !names.has(name))).toEqual([])
})

test('the mock declares every capability that is needed, so that every case is there', () => {
  const declared: ReadonlySet<Capability> = new Set(mock.possible)
  expect(allCases.flatMap(({ needs }) => needs).filter((capability) => !declared.has(capability))).toEqual([])
})

describe.concurrent('each case catches a driver that is broken', () => {
  for (const one of allCases) if (!isOfKind(one)) testCatches(one)
})
