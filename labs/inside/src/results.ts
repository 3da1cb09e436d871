/** What is told of one test, or of a heading whose hooks failed: a line of JSON each. */
export interface TestResult {
  readonly type: 'test' | 'suite'
  /** The headings above it and its own name. A file's own result has none. */
  readonly path: readonly string[]
  readonly state: 'pass' | 'fail' | 'skip'
  /** Milliseconds inside. */
  readonly duration?: number
  /** Why it was skipped. */
  readonly note?: string
  readonly errors?: readonly TestError[]
}

/** As it was thrown, with the stack in terms of the sources. */
export interface TestError {
  readonly name: string
  readonly message: string
  readonly stack: string
}

/** Reads one line. Throws a `SyntaxError` on anything else. */
export function parseResult(line: string): TestResult {
  const value: unknown = JSON.parse(line)
  if (!isResult(value)) throw new SyntaxError(`not a test's result: ${line.slice(0, 200)}`)
  return value
}

/** One line for a terminal, with the errors below it. */
export function resultText({ state, path, duration, note, errors = [] }: TestResult): string {
  const mark = { pass: 'ok     ', fail: 'FAILED ', skip: 'skipped' }[state]
  const time = duration === undefined ? '' : ` (${Math.round(duration)} ms)`
  const lines = [`${mark} ${path.join(' > ')}${time}${note === undefined ? '' : `: ${note}`}`]
  for (const { stack } of errors) lines.push(...stack.split('\n').map((line) => `        ${line}`))
  return `${lines.join('\n')}\n`
}

function isResult(value: unknown): value is TestResult {
  const { type, path, state, duration, note, errors } = record(value)
  return (
    (type === 'test' || type === 'suite') &&
    Array.isArray(path) &&
    path.every((name) => typeof name === 'string') &&
    (state === 'pass' || state === 'fail' || state === 'skip') &&
    (duration === undefined || typeof duration === 'number') &&
    (note === undefined || typeof note === 'string') &&
    (errors === undefined || (Array.isArray(errors) && errors.every(isError)))
  )
}

function isError(value: unknown): value is TestError {
  const { name, message, stack } = record(value)
  return typeof name === 'string' && typeof message === 'string' && typeof stack === 'string'
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
