import { openSync, writeSync } from 'node:fs'
import {
  type File,
  type Suite,
  startTests,
  type Task,
  type TaskEventPack,
  type Test,
  type VitestRunner,
  type VitestRunnerConfig,
} from '@vitest/runner'
import { resultText, type TestResult } from '../results.ts'

/** Ends a task: what it comes to is known then, hooks included. */
const ENDINGS = new Set(['test-finished', 'test-failed-early', 'suite-finished', 'suite-failed-early'])

/**
 * Runs a test file's tests, where the lab is. Each result is a line, as soon as there is one: JSON in the file (or
 * port) that `MICROVMI_RESULTS` names, else text on the standard output. `MICROVMI_TESTS` is a pattern of full names.
 */
export async function runTests(file: string, load: () => Promise<unknown>): Promise<void> {
  const { MICROVMI_RESULTS: port, MICROVMI_TESTS: pattern } = process.env
  const sink = port === undefined ? undefined : openSync(port, 'w')
  let failed = false
  const runner = new Runner(pattern === undefined ? undefined : new RegExp(pattern), load, (result) => {
    failed ||= result.state === 'fail'
    // A heading fails with what is below it: for a reader, only what its own hooks threw is news.
    const isNews = result.type === 'test' || result.errors !== undefined
    if (sink === undefined) process.stdout.write(isNews ? resultText(result) : '')
    else writeSync(sink, `${JSON.stringify(result)}\n`)
  })
  await startTests([file], runner)
  // What a test left open must not keep it up.
  process.stdout.write('', () => process.exit(failed ? 1 : 0))
}

class Runner implements VitestRunner {
  readonly config: VitestRunnerConfig
  readonly #load: () => Promise<unknown>
  readonly #tell: (result: TestResult) => void
  readonly #tasks = new Map<string, Task>()
  readonly #told = new Set<string>()

  constructor(pattern: RegExp | undefined, load: () => Promise<unknown>, tell: (result: TestResult) => void) {
    this.#load = load
    this.#tell = tell
    this.config = {
      root: '/',
      setupFiles: [],
      name: undefined,
      passWithNoTests: false,
      testNamePattern: pattern,
      allowOnly: true,
      sequence: { seed: 0, hooks: 'stack', setupFiles: 'list' },
      chaiConfig: undefined,
      maxConcurrency: 1,
      testTimeout: 60_000,
      hookTimeout: 120_000,
      retry: 0,
      includeTaskLocation: false,
      tags: [],
      tagsFilter: undefined,
      strictTags: false,
    }
  }

  importFile(): Promise<unknown> {
    return this.#load()
  }

  onCollected(files: File[]): void {
    for (const file of files) this.#note(file)
  }

  /** At once: should a later test end the process, what came before it is known. */
  onAfterRunTask(test: Test): void {
    this.#report(test)
  }

  onAfterRunSuite(suite: Suite): void {
    this.#report(suite)
  }

  async onTaskUpdate(_: unknown, events: TaskEventPack[]): Promise<void> {
    for (const [id, event] of events) {
      const task = this.#tasks.get(id)
      if (task !== undefined && ENDINGS.has(event)) this.#report(task)
    }
  }

  #note(task: Task): void {
    this.#tasks.set(task.id, task)
    if (task.type === 'suite') for (const child of task.tasks) this.#note(child)
  }

  #report(task: Test | Suite): void {
    const { state, duration, errors = [] } = task.result ?? {}
    // @vitest/runner declares the note with the skipped state only in its compiled code.
    const note = Reflect.get(task.result ?? {}, 'note')
    if (this.#told.has(task.id)) return
    this.#told.add(task.id)
    this.#tell({
      type: task.type,
      path: pathOf(task),
      state: state === 'pass' || state === 'fail' ? state : 'skip',
      ...(duration === undefined ? {} : { duration }),
      ...(typeof note === 'string' ? { note } : {}),
      ...(errors.length === 0 ? {} : { errors: errors.map(plain) }),
    })
  }
}

/** The names of a task and of the headings above it; the file itself is none. */
function pathOf(task: Task): string[] {
  if (task.file === task) return []
  return [...(task.suite ? pathOf(task.suite) : []), task.name]
}

function plain({
  name = 'Error',
  message,
  stack = '',
  diff,
}: {
  name?: string
  message: string
  stack?: string
  diff?: string
}) {
  const text = diff === undefined ? message : `${message}\n${diff}`
  return {
    name,
    message: text,
    stack: `${name}: ${text}\n${stack
      .split('\n')
      .filter((line) => /^\s+at /.test(line) && !line.includes('/node_modules/'))
      .join('\n')}`,
  }
}
