import { list } from '@microvmi/core'
import { Drivers } from '../drivers.ts'
import type { Io } from '../io.ts'
import { printJson } from '../json.ts'
import { table } from '../table.ts'

/** `microvmi list` */
export async function listCommand(
  io: Io,
  flags: { readonly json?: boolean; readonly timeout?: number },
): Promise<void> {
  const drivers = new Drivers(io.cwd())
  await drivers.importAll()
  const { vms, failures } = await list(flags.timeout === undefined ? {} : { timeout: flags.timeout })
  const problems = [
    ...failures.map(({ driver, error }) => ({ driver, message: error.message })),
    ...drivers.failures.map((failure) => ({ driver: failure.package, message: failure.error.message })),
  ]
  if (flags.json) {
    printJson(io, { vms, failures: problems })
    return
  }
  if (vms.length === 0) io.stderr.write('No VM is listed. `microvmi doctor` tells what each driver needs.\n')
  else {
    const rows = vms.map(({ target, name, id, state, hindrance = '' }) => [target, name, id, state, hindrance])
    io.stdout.write(table([['TARGET', 'NAME', 'ID', 'STATE', ''], ...rows]))
  }
  for (const { driver, message } of problems) io.stderr.write(`${driver}: ${message}\n`)
}
