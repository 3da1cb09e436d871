import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'

/** `dumpvmcore` says nothing, listings are short: what is longer comes from something else. */
const OUTPUT_LIMIT = 2 ** 24

/** Its messages are matched in English; names of VMs need UTF-8. */
const LOCALE = process.platform === 'win32' ? {} : { LC_ALL: process.platform === 'darwin' ? 'en_US.UTF-8' : 'C.UTF-8' }

/** What a call has at first, in milliseconds; as a rule it takes 30 to 90. */
const PATIENCE = [1000, 2000]

/** VirtualBox's command line program, without a shell: names may hold anything. */
export class VBoxManage {
  readonly path: string
  readonly #timeout: number

  constructor(path: string, timeout: number) {
    this.path = path
    this.#timeout = timeout
  }

  /**
   * What a call prints that may be made twice. One in some fifty of VirtualBox 7.2 stands still for 10 seconds before it
   * begins: that one is given up, and made again.
   */
  ask(...args: readonly string[]): string {
    const deadline = performance.now() + this.#timeout
    for (const patience of PATIENCE) {
      if (performance.now() + patience >= deadline) break
      try {
        return this.run(args, patience)
      } catch (error) {
        if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      }
    }
    return this.run(args, Math.max(1, deadline - performance.now()))
  }

  /** What it prints. `timeout` is for what takes longer than an exchange. */
  run(args: readonly string[], timeout = this.#timeout): string {
    try {
      return execFileSync(this.path, args, {
        encoding: 'utf8',
        timeout: Math.ceil(timeout),
        killSignal: 'SIGKILL',
        maxBuffer: OUTPUT_LIMIT,
        stdio: ['ignore', 'pipe', 'pipe'],
        windowsHide: true,
        env: { ...process.env, ...LOCALE },
      })
    } catch (error) {
      throw failure(this.path, args, timeout, error as NodeJS.ErrnoException & { stderr?: string })
    }
  }
}

function failure(
  path: string,
  args: readonly string[],
  timeout: number,
  error: NodeJS.ErrnoException & { stderr?: string },
): MicrovmiError {
  const cause = { cause: error }
  const what = `VBoxManage ${args.slice(0, 2).join(' ')}`
  if (error.code === 'ENOENT') return new MicrovmiError('DRIVER_UNAVAILABLE', `there is no program ${path}`, cause)
  if (error.code === 'EACCES') return new MicrovmiError('DENIED', `no right to run ${path}`, cause)
  if (error.code === 'ETIMEDOUT') {
    return new MicrovmiError('TIMEOUT', `${what} did not end within ${Math.round(timeout)} ms`, cause)
  }
  const complaint = complaintIn(error.stderr ?? '')
  if (isGone(error.stderr ?? ''))
    return new MicrovmiError('VM_GONE', `the VM does not run any more: ${complaint}`, cause)
  return new MicrovmiError('HYPERVISOR', `${what}: ${complaint || error.message}`, cause)
}

/** The first line of VBoxManage's complaint, without its name. */
export function complaintIn(stderr: string): string {
  const line = stderr.split('\n').find((text) => text.includes('error:')) ?? ''
  return line.slice(line.indexOf('error:') + 'error:'.length).trim()
}

/** Whether the complaint is that the VM is not there, or not on. */
export function isGone(stderr: string): boolean {
  return /is not currently running|VBOX_E_OBJECT_NOT_FOUND|machine state: (PoweredOff|Aborted|Saved)|Could not find a registered machine|Machine is not running/i.test(
    stderr,
  )
}

/** Where VBoxManage is, as VirtualBox's installers put it: the option, the path, then the usual places. */
export function findVBoxManage(option: string | undefined): string {
  if (option !== undefined) return option
  const isWindows = process.platform === 'win32'
  const program = isWindows ? 'VBoxManage.exe' : 'VBoxManage'
  const { PATH = '', VBOX_MSI_INSTALL_PATH, VBOX_INSTALL_PATH } = process.env
  const directories = [
    ...[VBOX_MSI_INSTALL_PATH, VBOX_INSTALL_PATH].filter((path) => path !== undefined),
    ...PATH.split(delimiter),
    ...(isWindows ? ['C:\\Program Files\\Oracle\\VirtualBox'] : ['/usr/bin', '/usr/local/bin', '/usr/lib/virtualbox']),
    ...(process.platform === 'darwin' ? ['/Applications/VirtualBox.app/Contents/MacOS'] : []),
  ]
  const found = directories
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, program))
    .find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new MicrovmiError(
    'DRIVER_UNAVAILABLE',
    'VBoxManage was not found: install VirtualBox, or give its path as the option vboxmanage',
  )
}
