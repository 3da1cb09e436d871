import { LabUnavailable } from '@microvmi/lab-debian'
import { parseResult, type TestError, type TestResult } from './results.ts'

/** Where tests run: another machine, or another operating system's program. */
export interface Place {
  /**
   * Runs a test file (see `bundled`) and gives each line that it writes to where `MICROVMI_RESULTS` says to `result`.
   * Returns its exit status.
   */
  run(job: TestJob): Promise<number>
  /** Where this checkout's files seem to be, in the stacks of what is thrown there. */
  readonly root: string
}

/** One test file's run. */
export interface TestJob {
  readonly file: string
  /** `MICROVMI_TESTS`, where only some tests are to run. */
  readonly environment: Readonly<Record<string, string>>
  readonly result: (line: string) => void
  readonly signal: AbortSignal
}

/** One test file's run elsewhere, and its results as they come. */
export class TestsInside {
  readonly #stop = new AbortController()
  readonly #results = new Map<string, TestResult[]>()
  readonly #waiting = new Map<string, (() => void)[]>()
  readonly #ended: Promise<unknown>
  readonly #place: Place
  #hasEnded = false

  /** @param pattern of the full names of tests to run; default: all */
  constructor(place: Place, file: string, pattern?: string) {
    this.#place = place
    let garbled: unknown
    const result = (line: string) => {
      try {
        this.#take(parseResult(line))
      } catch (error) {
        // The guest is at the other end of what writes these lines: a bad one ends the run, and is its reason.
        garbled ??= error
        this.stop()
      }
    }
    const environment: Record<string, string> = pattern === undefined ? {} : { MICROVMI_TESTS: pattern }
    this.#ended = place.run({ file, environment, result, signal: this.#stop.signal }).then(
      (status) => garbled ?? (status === 0 || status === 1 ? undefined : new Error(`the tests ended with ${status}`)),
      (error: unknown) => garbled ?? error,
    )
    void this.#ended.then(() => {
      this.#hasEnded = true
      for (const path of [...this.#waiting.keys()]) this.#wake(path)
    })
  }

  /** The next result of a test: of several with the same name, in their order. */
  async next(path: readonly string[]): Promise<TestResult> {
    return (await this.#awaited(keyOf('test', path))) ?? this.#missing(path)
  }

  /** What a heading's own hooks threw; of the file, which has no path, also why its run ended as it should not. */
  async failureOf(path: readonly string[]): Promise<Error | undefined> {
    const result = await this.#awaited(keyOf('suite', path))
    if (result?.errors) return this.errorOf(result)
    const end = path.length === 0 ? await this.#ended : undefined
    return end instanceof Error && !(end instanceof LabUnavailable) ? end : undefined
  }

  /** As it was thrown inside, told in terms of the files here. */
  errorOf({ errors = [] }: TestResult): Error {
    const [first, ...others] = errors.map((error) => errorFrom(error, this.#place.root))
    if (first === undefined) return new Error('it failed without an error')
    return others.length === 0 ? first : new AggregateError([first, ...others], first.message)
  }

  /** Ends it. */
  stop(): void {
    this.#stop.abort()
  }

  /** The next result with this key, or `undefined` when the run has ended without it. */
  async #awaited(key: string): Promise<TestResult | undefined> {
    for (;;) {
      const result = this.#results.get(key)?.shift()
      if (result || this.#hasEnded) return result
      await new Promise<void>((resolve) => this.#waiting.set(key, [...(this.#waiting.get(key) ?? []), resolve]))
    }
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

function errorFrom({ name, message, stack }: TestError, root: string): Error {
  const error = new Error(message)
  error.name = name
  error.stack = stack.replaceAll(root, `${process.cwd()}/`)
  return error
}
