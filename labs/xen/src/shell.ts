import { jobOf, runInMachine } from '@microvmi/lab-inside'
import { configurationOf } from './configuration.ts'
import { ENVIRONMENT, type XenMachineOptions, xenMachine } from './machine.ts'

/** The machine's first virtio console: hvc0 is Xen's. */
const TERMINAL = '/dev/hvc1'
/** Milliseconds. Somebody who forgot the shell gets the memory back. */
const TIMEOUT = 12 * 3_600_000
const TYPES = ['pvh', 'hvm', 'pv'] as const

/** A shell in dom0, at this process's terminal. The machine is gone when it ends. */
export async function shell(
  programs: readonly string[],
  copies: readonly string[],
  options: XenMachineOptions,
): Promise<number> {
  const { stdin, stdout, stderr } = process
  const job = await jobOf(['setsid', 'sh', '-c', scriptOf(stdout)], copies)
  const { command, files } = await jobOf(['node', ...programs])
  const configurations = TYPES.map((type) => [`job/${type}.cfg`, Buffer.from(configurationOf({ type }))] as const)
  const note = programs.length === 0 ? '' : `Bundled: ${command.slice(1).join(' ')}\n`
  stdout.write(`Booting Xen. In its dom0: xl create pvh.cfg (or hvm.cfg, pv.cfg), xl console microvmi-pvh.\n${note}`)
  if (stdin.isTTY) stdin.setRawMode(true)
  try {
    return await runInMachine(await xenMachine(options), {
      ...job,
      environment: { ...job.environment, ...ENVIRONMENT, PS1: 'dom0:\\w# ', TERM: process.env.TERM ?? 'vt100' },
      files: new Map([...job.files, ...files, ...configurations]),
      stdout,
      stderr,
      terminal: { input: stdin, output: stdout },
      timeout: TIMEOUT,
    })
  } finally {
    if (stdin.isTTY) stdin.setRawMode(false)
    stdin.destroy()
  }
}

/** A new session's first terminal becomes its own: Ctrl-C works in it. */
function scriptOf({ rows = 0, columns = 0 }: { rows?: number; columns?: number }): string {
  const size = rows === 0 || columns === 0 ? '' : `stty rows ${rows} cols ${columns}; `
  return `exec <>${TERMINAL} >&0 2>&0; ${size}exec sh -i`
}
