import { HostRunner, type Place, type TestJob } from '@microvmi/lab-inside'
import { jobOf } from './job.ts'
import { RESULTS, runInMachine } from './machine.ts'

/** From power-on to the last result, in milliseconds. */
const DEADLINE = 10 * 60_000

/** Runs this lab's test files in the outer machine. */
export default class KvmRunner extends HostRunner {
  protected readonly place: Place = { root: '/job/', run }
}

async function run({ file, environment, result, signal }: TestJob): Promise<number> {
  const job = await jobOf(['node', file])
  return runInMachine({
    ...job,
    environment: { ...job.environment, ...environment, MICROVMI_RESULTS: RESULTS },
    stdout: process.stdout,
    stderr: process.stderr,
    result,
    timeout: DEADLINE,
    signal,
  })
}
