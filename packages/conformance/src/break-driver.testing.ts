import type { Backend, BackendEvent, EventSink, OpenRequest } from '@microvmi/core/driver'
import type { TestedDriver } from './index.ts'

/** A driver that is broken on purpose, and what a case has to say about it. */
export interface Mutation {
  /** How it is broken. */
  readonly how: string
  readonly breaks: (driver: TestedDriver) => TestedDriver
  /** What the case that catches it says. */
  readonly says: RegExp
}

/** A driver whose backends are changed. */
export function backends(change: (backend: Backend, request: OpenRequest<object>) => Backend): Mutation['breaks'] {
  return (driver) => ({ ...driver, open: async (request) => change(await driver.open(request), request) })
}

/** A driver with one part of its backends changed. */
export function part<Name extends 'memory' | 'registers' | 'msr' | 'running' | 'events' | 'views'>(
  name: Name,
  change: (part: NonNullable<Backend[Name]>, backend: Backend) => Partial<NonNullable<Backend[Name]>>,
): Mutation['breaks'] {
  return backends((backend) => {
    const whole = backend[name]
    if (!whole) throw new Error(`the backend has no ${name}`)
    return changed(backend, { [name]: changed(whole, change(whole, backend)) })
  })
}

/** The same object but for some members. Those that stay are called as if nothing were between. */
export function changed<T extends object>(target: T, overrides: Partial<T>): T {
  return new Proxy(target, {
    get(_, name) {
      if (name in overrides) return Reflect.get(overrides, name)
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
    has: (_, name) => name in overrides || name in target,
  })
}

/** A driver that hands its events over in another way. */
export function delivering(
  change: (deliver: EventSink['deliver'], backend: Backend) => EventSink['deliver'],
): Mutation['breaks'] {
  return part('events', (events, backend) => ({
    listen: (sink) => {
      events.listen({ deliver: change((event) => sink.deliver(event), backend), fail: (error) => sink.fail(error) })
    },
  }))
}

/** Whether an event is of a kind. */
export function isOf(kind: string): (event: BackendEvent) => boolean {
  return (event) => event.kind === kind
}
