import { parseArgs } from 'node:util'
import { LabUnavailable } from '@microvmi/lab-debian'
import { jobOf, runInMachine } from '@microvmi/lab-inside'
import { ENVIRONMENT, xenMachine } from './machine.ts'
import { shell } from './shell.ts'

const USAGE = `usage: node --import tsx labs/xen/src/main.ts run [--copy FILE]... [--timeout SECONDS] -- COMMAND [ARGUMENT]...
       node --import tsx labs/xen/src/main.ts shell [--copy FILE]... [PROGRAM.ts]...

Boots a machine with Xen, runs the command in dom0, and exits with its status. Arguments that are TypeScript files are
bundled with all that they import; one that ends in .test.ts runs its tests. Any other file must be copied.

  node --import tsx labs/xen/src/main.ts run -- xl list
  node --import tsx labs/xen/src/main.ts run -- node labs/xen/xen.lab.test.ts`

/** Seconds. */
const DEFAULT_TIMEOUT = 240

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    copy: { type: 'string', multiple: true, default: [] },
    timeout: { type: 'string', default: String(DEFAULT_TIMEOUT) },
  },
})

const [verb, ...words] = positionals
const timeout = Number(values.timeout) * 1000
try {
  if (verb === 'shell') process.exitCode = await shell(words, values.copy)
  else if (verb === 'run' && words.length > 0 && timeout > 0) process.exitCode = await runCommand(words)
  else {
    console.error(USAGE)
    process.exitCode = 2
  }
} catch (error) {
  if (!(error instanceof LabUnavailable)) throw error
  console.error(`labs/xen cannot run here: ${error.message}`)
  process.exitCode = 1
}

async function runCommand(command: readonly string[]): Promise<number> {
  const job = await jobOf(command, values.copy)
  const environment = { ...job.environment, ...ENVIRONMENT }
  const output = { stdout: process.stdout, stderr: process.stderr }
  return runInMachine(await xenMachine(), { ...job, environment, ...output, timeout })
}
