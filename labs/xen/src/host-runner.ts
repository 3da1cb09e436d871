import { HostRunner, jobOf, type Machine, type Place, RESULTS, runInMachine, type TestJob } from '@microvmi/lab-inside'
import { ENVIRONMENT, xenMachine } from './machine.ts'

/** From power-on to the last result, in milliseconds. */
const DEADLINE = 10 * 60_000

/** Runs this lab's test files in dom0. */
export default class XenRunner extends HostRunner {
  protected readonly place: Place = placeIn(() => xenMachine())
}

/** dom0 of a machine of its own for each test file. */
export function placeIn(machine: () => Promise<Machine>): Place {
  return { root: '/job/', run: async (job) => runTests(await machine(), job) }
}

async function runTests(machine: Machine, { file, environment, result, signal }: TestJob): Promise<number> {
  const job = await jobOf(['node', file])
  return runInMachine(machine, {
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
