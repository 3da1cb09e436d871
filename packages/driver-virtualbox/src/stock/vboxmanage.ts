import { execFile, execFileSync } from 'node:child_process'
import { promisify } from 'node:util'
import { MicrovmiError } from '@microvmi/core/driver'

const execFileAsync = promisify(execFile)

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

  /** What it prints. */
  run(args: readonly string[], timeout = this.#timeout): string {
    try {
      return execFileSync(this.path, args, {
        ...this.#options(timeout),
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      })
    } catch (error) {
      throw this.#failure(args, timeout, error as Failed)
    }
  }

  /** A call that takes its time: the event loop goes on meanwhile. */
  async work(args: readonly string[], timeout: number): Promise<void> {
    try {
      await execFileAsync(this.path, args, this.#options(timeout))
    } catch (error) {
      throw this.#failure(args, timeout, error as Failed)
    }
  }

  #options(timeout: number) {
    return {
      timeout: Math.ceil(timeout),
      killSignal: 'SIGKILL',
      maxBuffer: OUTPUT_LIMIT,
      windowsHide: true,
      env: { ...process.env, ...LOCALE },
    } as const
  }

  #failure(args: readonly string[], timeout: number, error: Failed): MicrovmiError {
    const cause = { cause: error }
    const what = `VBoxManage ${args.slice(0, 2).join(' ')}`
    if (error.code === 'ENOENT') {
      return new MicrovmiError('DRIVER_UNAVAILABLE', `there is no program ${this.path}`, cause)
    }
    if (error.code === 'EACCES') return new MicrovmiError('DENIED', `no right to run ${this.path}`, cause)
    // execFile tells that it has killed the program, execFileSync has a code for it.
    if (error.code === 'ETIMEDOUT' || error.killed) {
      return new MicrovmiError('TIMEOUT', `${what} did not end within ${Math.round(timeout)} ms`, cause)
    }
    const stderr = error.stderr ?? ''
    const complaint = complaintIn(stderr)
    if (isGone(stderr)) return new MicrovmiError('VM_GONE', `the VM does not run any more: ${complaint}`, cause)
    return new MicrovmiError('HYPERVISOR', `${what}: ${complaint || error.message}`, cause)
  }
}

/** What running a program fails with. */
type Failed = NodeJS.ErrnoException & { readonly stderr?: string; readonly killed?: boolean }

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
