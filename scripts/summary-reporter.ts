import { writeFileSync } from 'node:fs'
import type { Reporter, SerializedError, TestCase, TestModule, Vitest } from 'vitest/node'

/**
 * Ends a test run with what was skipped and why, and writes the line `N passed, N failed` to the file that
 * MICROVMI_TEST_COUNTS names.
 *
 * With MICROVMI_LABS=required the run fails when a lab did not come up (nothing of one of its test files ran), and when
 * a test was skipped without a reason.
 */
export default class SummaryReporter implements Reporter {
  #vitest: Vitest | undefined

  onInit(vitest: Vitest): void {
    this.#vitest = vitest
  }

  onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[]): void {
    const vitest = this.#vitest
    // With a name filter vitest itself marks the other tests as skipped: that says nothing.
    if (vitest === undefined || vitest.config.testNamePattern !== undefined) return

    const skipped = testsOf(modules, 'skipped')
    vitest.logger.log(skipped.length === 0 ? 'Nothing was skipped.' : `Skipped ${skipped.length}:`)
    for (const [reason, tests] of byReason(skipped)) {
      const files = [...new Set(tests.map((test) => test.module.relativeModuleId))]
      vitest.logger.log(`  ${tests.length} x ${reason} (${files.join(', ')})`)
    }

    const missing = process.env.MICROVMI_LABS === 'required' ? missingOf(modules, skipped) : []
    if (missing.length > 0) {
      vitest.logger.error(`MICROVMI_LABS=required, therefore this run failed:\n  ${missing.join('\n  ')}`)
      process.exitCode = 1
    }

    const counts = process.env.MICROVMI_TEST_COUNTS
    if (counts === undefined) return
    const passed = testsOf(modules, 'passed').length
    const failed = testsOf(modules, 'failed').length + modules.filter(failedAsWhole).length + errors.length
    writeFileSync(counts, `${passed} passed, ${failed + missing.length} failed\n`)
  }
}

function testsOf(modules: readonly TestModule[], state: 'passed' | 'failed' | 'skipped'): TestCase[] {
  return modules.flatMap((module) => [...module.children.allTests(state)])
}

function byReason(tests: readonly TestCase[]): Map<string, TestCase[]> {
  const groups = new Map<string, TestCase[]>()
  for (const test of tests) {
    const reason = `[${test.project.name}] ${noteOf(test) ?? 'no reason given'}`
    groups.set(reason, [...(groups.get(reason) ?? []), test])
  }
  return groups
}

function noteOf(test: TestCase): string | undefined {
  const result = test.result()
  return result.state === 'skipped' ? result.note : undefined
}

function missingOf(modules: readonly TestModule[], skipped: readonly TestCase[]): string[] {
  return [
    ...modules.filter(labDidNotRun).map((module) => `${module.relativeModuleId}: the lab did not come up`),
    ...skipped.filter((test) => noteOf(test) === undefined).map((test) => `${test.fullName}: skipped without a reason`),
  ]
}

function labDidNotRun(module: TestModule): boolean {
  if (!module.project.name.startsWith('lab:') || failedAsWhole(module)) return false
  return [...module.children.allTests()].every((test) => test.result().state === 'skipped')
}

/** The file did not load, or a hook threw: no test of it failed, yet it did. */
function failedAsWhole(module: TestModule): boolean {
  return module.state() === 'failed' && testsOf([module], 'failed').length === 0
}
