import { HostRunner, jobOf, type Place, RESULTS, runInMachine, type TestJob } from '@microvmi/lab-inside'
import { ENVIRONMENT, outerMachine } from './machine.ts'

/** From power-on to the last result, in milliseconds. */
const DEADLINE = 10 * 60_000

/** Runs this lab's test files in the outer machine. */
export default class KvmRunner extends HostRunner {
  protected readonly place: Place = { root: '/job/', run }
}

async function run({ file, environment, result, signal }: TestJob): Promise<number> {
  const job = await jobOf(['node', file])
  return runInMachine(await outerMachine(), {
    ...job,
    environment: { ...job.environment, ...ENVIRONMENT, ...environment, MICROVMI_RESULTS: RESULTS },
    stdout: process.stdout,
    stderr: process.stderr,
    result,
    timeout: DEADLINE,
    signal,
  })
}
