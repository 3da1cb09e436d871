import type { Driver } from '@microvmi/core'
import { type Backend, defineDriver } from '@microvmi/core/driver'
import type { Fixture, Guest, Provocations, register } from './index.ts'

declare const backend: () => Promise<never>

/** A driver with options and promises of its own is one that can be tested. */
export const fixture: Fixture = {
  driver: defineDriver<{ socket?: string }>()({
    scheme: 'acme',
    package: '@acme/microvmi-driver 1.0.0',
    contract: { major: 0, minor: 1 },
    promises: ['memory.read'],
    possible: ['pause', 'events.cr'],
    options: { socket: 'string' },
    probe: async () => ({ usable: true }),
    list: async () => [],
    open: backend,
  }),
  guest: () => ({ vm: 'guest' }),
}

export type AnyDriver = Driver<{ socket?: string }, 'memory.read', never>
export const driver: Fixture['driver'] = {} as AnyDriver
export const opened: Promise<Backend> = driver.open({ vm: '', options: {}, timeout: 1, signal: undefined })

/** What is provoked is typed by its kind. */
export const provoke: Provocations = {
  cr: {
    request: { kind: 'cr', register: 'cr3' },
    check: (event) => {
      const value: bigint = event.new
      void value
    },
    replies: {
      deny: (event) => event.reply({ deny: true }),
      // @ts-expect-error a write to a control register cannot be emulated
      emulate: (event) => event.reply({ emulate: true }),
    },
  },
  // @ts-expect-error a request of another kind
  msr: { request: { kind: 'cr', register: 'cr3' } },
  memory: [{ request: { kind: 'memory', address: 0, length: 1, access: 'w' } }],
  // @ts-expect-error in several ways: in one at least
  io: [],
}

// @ts-expect-error a guest has a name
export const nameless: Guest = {}

/** The runners that it is made for. */
export type Runners = [
  typeof import('node:test')['test'] extends Parameters<typeof register>[1]['test'] ? true : never,
  typeof import('vitest')['test'] extends Parameters<typeof register>[1]['test'] ? true : never,
]
export const runners: Runners = [true, true]
