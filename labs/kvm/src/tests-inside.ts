import { LabUnavailable } from '@microvmi/lab-debian'
import { jobOf } from './job.ts'
import { RESULTS, runInMachine } from './machine.ts'
import { parseResult, type TestError, type TestResult } from './results.ts'

/** From power-on to the last result, in milliseconds. */
const DEADLINE = 10 * 60_000

/** One test file's run in an outer machine, and its results as they come. */
export class TestsInside {
  readonly #stop = new AbortController()
  readonly #results = new Map<string, TestResult[]>()
  readonly #waiting = new Map<string, (() => void)[]>()
  readonly #ended: Promise<unknown>
  #hasEnded = false

  /** @param pattern of the full names of tests to run; default: all */
  constructor(file: string, pattern?: string) {
    this.#ended = this.#run(file, pattern).then(
      (status) => (status === 0 || status === 1 ? undefined : new Error(`the tests ended with status ${status}`)),
      (error: unknown) => error,
    )
    void this.#ended.then(() => {
      this.#hasEnded = true
      for (const path of [...this.#waiting.keys()]) this.#wake(path)
    })
  }

  /** The next result of a test: of several with the same name, in their order. */
  async next(path: readonly string[]): Promise<TestResult> {
    const key = keyOf('test', path)
    for (;;) {
      const result = this.#results.get(key)?.shift()
      if (result) return result
      if (this.#hasEnded) return this.#missing(path)
      await new Promise<void>((resolve) => this.#waiting.set(key, [...(this.#waiting.get(key) ?? []), resolve]))
    }
  }

  /** What a heading's own hooks threw, or for a whole file what went wrong outside of all tests. */
  async failureOf(path: readonly string[], isFile: boolean): Promise<Error | undefined> {
    if (isFile) await this.#ended
    const result = this.#results.get(keyOf('suite', path))?.shift()
    return result && this.errorOf(result)
  }

  /** As it was thrown inside, told in terms of the files here. */
  errorOf({ errors = [] }: TestResult): Error {
    const [first, ...others] = errors.map(errorFrom)
    if (first === undefined) return new Error('it failed without an error')
    return others.length === 0 ? first : new AggregateError([first, ...others], first.message)
  }

  /** Turns the machine off. */
  stop(): void {
    this.#stop.abort()
  }

  async #run(file: string, pattern: string | undefined): Promise<number> {
    const { environment, ...job } = await jobOf(['node', file])
    return runInMachine({
      ...job,
      environment: {
        ...environment,
        MICROVMI_KVM_RESULTS: RESULTS,
        ...(pattern === undefined ? {} : { MICROVMI_KVM_TESTS: pattern }),
      },
      stdout: process.stdout,
      stderr: process.stderr,
      result: (line) => this.#take(parseResult(line)),
      timeout: DEADLINE,
      signal: this.#stop.signal,
    })
  }

  #take(result: TestResult): void {
    const key = keyOf(result.type, result.path)
    this.#results.set(key, [...(this.#results.get(key) ?? []), result])
    this.#wake(key)
  }

  #wake(key: string): void {
    const waiting = this.#waiting.get(key) ?? []
    this.#waiting.delete(key)
    for (const resume of waiting) resume()
  }

  /** The run is over and said nothing of this test. */
  async #missing(path: readonly string[]): Promise<TestResult> {
    const cause = await this.#ended
    const isRequired = process.env.MICROVMI_LABS === 'required'
    if (cause instanceof LabUnavailable && !isRequired) {
      return { type: 'test', path, state: 'skip', note: cause.message }
    }
    const error = cause instanceof Error ? cause : new Error('its run inside ended before it came to this test')
    const { name, message, stack = message } = error
    return { type: 'test', path, state: 'fail', errors: [{ name, message, stack }] }
  }
}

function keyOf(type: TestResult['type'], path: readonly string[]): string {
  return JSON.stringify([type, ...path])
}

function errorFrom({ name, message, stack }: TestError): Error {
  const error = new Error(message)
  error.name = name
  error.stack = stack.replaceAll('/job/', `${process.cwd()}/`)
  return error
}
