import { HostRunner, jobOf, type Place, RESULTS, runInMachine, type TestJob } from '@microvmi/lab-inside'
import { ENVIRONMENT, xenMachine } from './machine.ts'

/** From power-on to the last result, in milliseconds. */
const DEADLINE = 10 * 60_000

/** Runs this lab's test files in dom0. */
export default class XenRunner extends HostRunner {
  protected readonly place: Place = { root: '/job/', run }
}

async function run({ file, environment, result, signal }: TestJob): Promise<number> {
  const job = await jobOf(['node', file])
  return runInMachine(await xenMachine(), {
    ...job,
    environment: { ...job.environment, ...ENVIRONMENT, ...environment, MICROVMI_RESULTS: RESULTS },
    stdout: process.stdout,
    stderr: process.stderr,
    result,
    started: (milliseconds) => console.log(`dom0 is up after ${(milliseconds / 1000).toFixed(1)} s`),
    timeout: DEADLINE,
    signal,
  })
}
