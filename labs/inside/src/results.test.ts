import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseResult, resultText, type TestResult } from './results.ts'

const error = fc.record({ name: fc.string(), message: fc.string(), stack: fc.string() })
const result: fc.Arbitrary<TestResult> = fc.record(
  {
    type: fc.constantFrom('test', 'suite'),
    path: fc.array(fc.string()),
    state: fc.constantFrom('pass', 'fail', 'skip'),
    duration: fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
    note: fc.string(),
    errors: fc.array(error),
  },
  { requiredKeys: ['type', 'path', 'state'] },
)

test('a result is the same at the other end, on one line', () => {
  fc.assert(
    fc.property(result, (value) => {
      const line = JSON.stringify(value)
      expect(line).not.toContain('\n')
      expect(parseResult(line)).toEqual(JSON.parse(line))
    }),
  )
})

test('whatever else comes is a SyntaxError', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        result.map((value) => JSON.stringify(value).slice(0, -2)),
      ),
      (line) => {
        try {
          const { state } = parseResult(line)
          expect(['pass', 'fail', 'skip']).toContain(state)
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(SyntaxError)
        }
      },
    ),
  )
  const good = { type: 'test', path: ['a'], state: 'pass' }
  for (const bad of [{ type: 'file' }, { path: 'a' }, { path: [1] }, { state: 'run' }, { note: 1 }, { errors: [{}] }]) {
    expect(() => parseResult(JSON.stringify({ ...good, ...bad }))).toThrow(SyntaxError)
  }
})

test('as text', () => {
  expect(resultText({ type: 'test', path: ['a', 'b'], state: 'pass', duration: 12.4 })).toBe('ok      a > b (12 ms)\n')
  expect(resultText({ type: 'test', path: ['a'], state: 'skip', note: 'why' })).toBe('skipped a: why\n')
  const errors = [{ name: 'Error', message: 'm', stack: 'Error: m\n    at x' }]
  expect(resultText({ type: 'test', path: ['a'], state: 'fail', errors })).toBe(
    'FAILED  a\n        Error: m\n            at x\n',
  )
})
