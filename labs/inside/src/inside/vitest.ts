// What test files import from vitest, in a bundle: the same runner and the same assertions without
// the rest of vitest, which starts within a second even in emulation.
import { setTimeout } from 'node:timers/promises'
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  ChaiStyleAssertions,
  chai,
  customMatchers,
  type ExpectStatic,
  GLOBAL_EXPECT,
  getState,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  type MatcherState,
  setState,
} from '@vitest/expect'

export {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  it,
  onTestFailed,
  onTestFinished,
  suite,
  test,
} from '@vitest/runner'

for (const plugin of [JestExtend, JestChaiExpect, ChaiStyleAssertions, JestAsymmetricMatchers]) chai.use(plugin)

export const expect = createExpect()

function createExpect(): ExpectStatic {
  const made = ((value: unknown, message?: string) => chai.expect(value, message)) as unknown as ExpectStatic
  Object.assign(made, chai.expect, Reflect.get(globalThis, ASYMMETRIC_MATCHERS_OBJECT))
  made.getState = () => getState(made)
  made.setState = (state: Partial<MatcherState>) => setState(state, made)
  Reflect.apply(Reflect.get(chai.expect, 'extend'), chai.expect, [made, customMatchers])
  Object.assign(made, { poll })
  setState({ assertionCalls: 0 }, made)
  Object.defineProperty(globalThis, GLOBAL_EXPECT, { value: made, writable: true, configurable: true })
  return made
}

/** Milliseconds between two tries, and in all (as vitest has them). */
const POLL = { interval: 50, timeout: 1000 }

/** `expect.poll(...).matcher(...)`: tries until the matcher is content or the time is up. */
function poll(read: () => unknown, options: { interval?: number; timeout?: number; message?: string } = {}): object {
  const { interval, timeout, message } = { ...POLL, ...options }
  return polling([])

  function polling(words: readonly string[]): object {
    return new Proxy(() => undefined, {
      get: (_, word) => (typeof word === 'string' && word !== 'then' ? polling([...words, word]) : undefined),
      apply: (_, __, args: unknown[]) => tried(words, args),
    })
  }

  async function tried(words: readonly string[], args: readonly unknown[]): Promise<void> {
    for (const end = Date.now() + timeout; ; await setTimeout(interval)) {
      const isLast = Date.now() >= end
      try {
        const value = await read()
        let matcher: object = expect(value, message)
        for (const word of words.slice(0, -1)) matcher = Reflect.get(matcher, word)
        return Reflect.apply(Reflect.get(matcher, words.at(-1) ?? ''), matcher, args)
      } catch (error) {
        if (isLast) throw error
      }
    }
  }
}
