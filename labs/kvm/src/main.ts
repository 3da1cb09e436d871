import { parseArgs } from 'node:util'
import { LabUnavailable } from '@microvmi/lab-debian'
import { jobOf, runInMachine } from '@microvmi/lab-inside'
import { ENVIRONMENT, outerMachine } from './machine.ts'

const USAGE = `usage: node --import tsx labs/kvm/src/main.ts run [--copy FILE]... [--timeout SECONDS] -- COMMAND [ARGUMENT]...

Boots a machine with KVM, runs the command in it, and exits with its status. Arguments that are TypeScript files are
bundled with all that they import; one that ends in .test.ts runs its tests. Any other file must be copied.

  node --import tsx labs/kvm/src/main.ts run -- node packages/driver-kvm/src/conformance.kvm.lab.test.ts`

/** Seconds. */
const DEFAULT_TIMEOUT = 240

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    copy: { type: 'string', multiple: true, default: [] },
    timeout: { type: 'string', default: String(DEFAULT_TIMEOUT) },
  },
})

const [verb, ...command] = positionals
const timeout = Number(values.timeout) * 1000
if (verb !== 'run' || command.length === 0 || !(timeout > 0)) {
  console.error(USAGE)
  process.exitCode = 2
} else {
  try {
    const job = await jobOf(command, values.copy)
    const environment = { ...job.environment, ...ENVIRONMENT }
    const output = { stdout: process.stdout, stderr: process.stderr }
    process.exitCode = await runInMachine(await outerMachine(), { ...job, environment, ...output, timeout })
  } catch (error) {
    if (!(error instanceof LabUnavailable)) throw error
    console.error(`labs/kvm cannot run here: ${error.message}`)
    process.exitCode = 1
  }
}
