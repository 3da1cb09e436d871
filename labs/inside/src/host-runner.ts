import type { File, Suite, Task, Test } from '@vitest/runner'
import { TestRunner } from 'vitest'
import { type Place, TestsInside } from './tests-inside.ts'

/**
 * vitest's runner for test files that run elsewhere: it collects their tests here, has them run there, and makes each
 * result theirs. Neither their hooks nor their bodies are called here.
 */
export abstract class HostRunner extends TestRunner {
  protected abstract readonly place: Place
  #inside: TestsInside | undefined

  onCollected(files: File[]): void {
    for (const file of files) {
      leaveToInside(file)
      if (!hasWork(file)) continue
      const { testNamePattern } = this.config
      this.#inside = new TestsInside(this.place, file.filepath, testNamePattern && new RegExp(testNamePattern).source)
    }
  }

  async runTask(test: Test): Promise<void> {
    const result = await this.#inside?.next(pathOf(test))
    if (result?.state === 'skip') test.context.skip(result.note)
    if (result?.state === 'fail') throw this.#inside?.errorOf(result)
  }

  override async onAfterRunSuite(suite: Suite): Promise<void> {
    const failure = await this.#inside?.failureOf(pathOf(suite))
    if (failure !== undefined && suite.result) {
      const { name, message, stack = message } = failure
      suite.result = { ...suite.result, state: 'fail', errors: [{ name, message, stack }] }
    }
    await super.onAfterRunSuite(suite)
  }

  override cancel(reason: Parameters<TestRunner['cancel']>[0]): void {
    super.cancel(reason)
    this.#inside?.stop()
  }
}

function hasWork(task: Task): boolean {
  return task.type === 'suite' ? task.tasks.some(hasWork) : task.mode === 'run' || task.mode === 'queued'
}

/** What is done around a test has been done inside: hooks, tries, and the turning round of `test.fails`. */
function leaveToInside(task: Task): void {
  if (task.type === 'suite') {
    for (const hooks of Object.values(TestRunner.getSuiteHooks(task))) hooks.length = 0
    for (const child of task.tasks) leaveToInside(child)
  } else {
    Object.assign(task, { fails: false, retry: 0, repeats: 0 })
  }
}

/** The names of a task and of the headings above it; the file itself is none. */
function pathOf(task: Task): string[] {
  if (task.file === task) return []
  return [...(task.suite ? pathOf(task.suite) : []), task.name]
}
