import { parseArgs } from 'node:util'
import { LabUnavailable } from '@microvmi/lab-debian'
import { jobOf, runInMachine } from '@microvmi/lab-inside'
import { intelMachine } from './intel-machine.ts'
import { ENVIRONMENT, xenMachine } from './machine.ts'
import { XEN_VERSIONS, type XenVersion } from './packages.ts'
import { shell } from './shell.ts'

const USAGE = `usage: node --import tsx labs/xen/src/main.ts run [--intel] [--xen VERSION] [--copy FILE]... [--timeout SECONDS] [--cpus COUNT] -- COMMAND [ARGUMENT]...
       node --import tsx labs/xen/src/main.ts shell [--xen VERSION] [--copy FILE]... [--cpus COUNT] [PROGRAM.ts]...

Boots a machine with Xen, runs the command in dom0, and exits with its status. Arguments that are TypeScript files are
bundled with all that they import; one that ends in .test.ts runs its tests. Any other file must be copied.
With --intel the machine is one of Intel's, with one processor. VERSION is ${XEN_VERSIONS.join(' or ')}; without it, 4.17.

  node --import tsx labs/xen/src/main.ts run -- xl list
  node --import tsx labs/xen/src/main.ts run -- node labs/xen/xen.lab.test.ts`

/** Seconds. */
const DEFAULT_TIMEOUT = 240

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    xen: { type: 'string', default: '4.17' },
    intel: { type: 'boolean', default: false },
    copy: { type: 'string', multiple: true, default: [] },
    cpus: { type: 'string', default: '1' },
    timeout: { type: 'string', default: String(DEFAULT_TIMEOUT) },
  },
})

const [verb, ...words] = positionals
const timeout = Number(values.timeout) * 1000
const cpus = Number(values.cpus)
const version = XEN_VERSIONS.find((known) => known === values.xen)
const isSane = timeout > 0 && Number.isInteger(cpus) && cpus > 0
try {
  if (verb === 'shell' && isSane && version) process.exitCode = await shell(words, values.copy, { version, cpus })
  else if (verb === 'run' && words.length > 0 && isSane && version) {
    process.exitCode = await runCommand(words, version)
  } else {
    console.error(USAGE)
    process.exitCode = 2
  }
} catch (error) {
  if (!(error instanceof LabUnavailable)) throw error
  console.error(`labs/xen cannot run here: ${error.message}`)
  process.exitCode = 1
}

async function runCommand(command: readonly string[], version: XenVersion): Promise<number> {
  const job = await jobOf(command, values.copy)
  const environment = { ...job.environment, ...ENVIRONMENT }
  const output = { stdout: process.stdout, stderr: process.stderr }
  return runInMachine(await (values.intel ? intelMachine(version) : xenMachine({ version, cpus })), {
    ...job,
    environment,
    ...output,
    timeout,
  })
}
