import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { argumentsOf, DEFAULT_MEMORY_MIB, DEFAULT_NAME } from './arguments.ts'
import { factsIn, type GuestFacts, lastTick, type Tick } from './facts.ts'
import { images } from './images.ts'
import { monitor } from './monitor.ts'
import { noteOwner, RunDirectories } from './run-directory.ts'

/** How the guest is to be. */
export interface QemuOptions {
  /** The VM's name. Default `microvmi-lab`. */
  readonly name?: string
  readonly vcpus?: number
  /** Default 512. */
  readonly memoryMiB?: number
  /** Where its RAM is: in a file at a path, in one without (memfd), or in QEMU's private memory. Default `file`. */
  readonly ram?: 'file' | 'memfd' | 'private'
  readonly machine?: 'q35' | 'pc'
  /** QEMU's model of the processor. Default `qemu64`; `max` has five levels of page tables. */
  readonly cpu?: string
  /** Do not start the vCPUs: there will be no facts. */
  readonly paused?: boolean
  /** Start QEMU with a gdbstub of the user's. */
  readonly gdb?: boolean
  /** Leave the monitor away: nothing can be asked. */
  readonly monitor?: boolean
  /** Let the guest live on when this process ends. */
  readonly detached?: boolean
  readonly commandLine?: string
}

/** A guest that runs. */
export interface QemuLab extends AsyncDisposable {
  readonly name: string
  readonly pid: number
  readonly directory: string
  /** For the driver under test. */
  readonly qmp: string
  /** For tests' own questions: a QMP socket serves one client at a time. */
  readonly ownQmp: string
  readonly gdb: string | undefined
  /** The RAM file's path, where it has one. */
  readonly ramFile: string | undefined
  /**
   * Waits until the guest's processes run, and returns what it told of itself. Throws as soon as the guest fails or QEMU
   * ends; the guest is still the caller's to stop then.
   */
  ready(): Promise<GuestFacts>
  /** The guest's counts of the last second. */
  tick(): Tick | undefined
  /** All that the guest has written on its console. */
  console(): string
  /** Kills QEMU and removes what it left. Throws, and removes nothing, where QEMU lives on all the same. */
  stop(): Promise<void>
}

const START_DEADLINE = 30_000
const BOOT_DEADLINE = 120_000
const STOP_DEADLINE = 10_000

/** What QEMU leaves in a guest's directory besides RAM. */
const SMALL_FILES = 2 ** 24

/** The directories of this lab's guests. */
export const runDirectories = new RunDirectories('microvmi-lab-')

/** A directory for a QEMU that another lab starts and ends: `noteOwner` tells which that is. */
export function createRunDirectory(): string {
  return runDirectories.create('process', SMALL_FILES)
}

/**
 * Starts a Linux guest under software emulation, or on KVM inside the machine of labs/kvm. Without `detached`, it ends
 * with this process, however that ends. Throws `LabUnavailable` where it cannot come up.
 */
export async function startQemu(options: QemuOptions = {}): Promise<QemuLab> {
  const files = await images()
  const { root } = files
  const ramBytes = (options.ram ?? 'file') === 'file' ? (options.memoryMiB ?? DEFAULT_MEMORY_MIB) * 2 ** 20 : 0
  const directory = runDirectories.create(options.detached ? 'command' : 'process', ramBytes + SMALL_FILES)
  const log = openSync(join(directory, 'log'), 'w', 0o600)
  // The kernel ends QEMU when its parent has ended: no path leaves one behind.
  const guard = options.detached ? [] : ['setpriv', '--pdeathsig', 'KILL', '--']
  // Sockets and RAM are this user's alone, whoever may come into the directory.
  const shell = ['sh', '-c', 'umask 077; exec "$@"', 'sh']
  const qemu = [join(root, 'usr/bin/qemu-system-x86_64'), ...argumentsOf(options, files, directory)]
  const [command = '', ...rest] = [...guard, ...shell, ...qemu]
  const child = spawn(command, rest, {
    stdio: ['ignore', log, log],
    detached: options.detached ?? false,
    env: {
      ...process.env,
      LD_LIBRARY_PATH: [join(root, 'usr/lib/x86_64-linux-gnu'), join(root, 'lib/x86_64-linux-gnu')].join(':'),
      QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu'),
    },
  })
  closeSync(log)
  const lab = new RunningGuest(options, child, directory)
  try {
    await lab.started()
    if (files.accelerator === 'kvm' && options.monitor !== false) await yieldToObservers(lab.ownQmp)
  } catch (error) {
    await lab.stop()
    throw error
  }
  if (options.detached) child.unref()
  return lab
}

class RunningGuest implements QemuLab {
  readonly name: string
  readonly directory: string
  readonly qmp: string
  readonly ownQmp: string
  readonly gdb: string | undefined
  readonly ramFile: string | undefined
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #hasMonitor: boolean

  constructor(options: QemuOptions, child: ChildProcess, directory: string) {
    this.name = options.name ?? DEFAULT_NAME
    this.directory = directory
    this.qmp = join(directory, 'qmp')
    this.ownQmp = join(directory, 'own')
    this.gdb = options.gdb ? join(directory, 'gdb') : undefined
    this.ramFile = (options.ram ?? 'file') === 'file' ? join(directory, 'ram') : undefined
    this.#hasMonitor = options.monitor ?? true
    this.#child = child
    this.#ended = new Promise((resolve) => {
      child.once('exit', resolve)
      child.once('error', resolve)
    })
    if (child.pid !== undefined) noteOwner(directory, child.pid)
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  /** Waits until QEMU has read its command line, and answers. */
  async started(): Promise<void> {
    const end = Date.now() + START_DEADLINE
    const files = [this.#hasMonitor ? this.ownQmp : join(this.directory, 'console'), ...(this.gdb ? [this.gdb] : [])]
    while (!files.every((file) => existsSync(file))) await this.#goOn(end, 'does not start')
    while (this.#hasMonitor) {
      try {
        // A thread greets already while QEMU still reads its command line; commands are answered when it has.
        await monitor(this.ownQmp, 'query-status', {}, Math.max(end - Date.now(), 1))
        return
      } catch (error) {
        // The socket's file is there a moment before it takes connections; where QEMU has ended, that is what to tell.
        await this.#goOn(end, `does not start (${String(error)})`)
      }
    }
  }

  async ready(): Promise<GuestFacts> {
    for (const end = Date.now() + BOOT_DEADLINE; ; await this.#goOn(end, 'runs, but its guest does not come up')) {
      const facts = factsIn(this.console())
      if (facts) return facts
    }
  }

  tick(): Tick | undefined {
    return lastTick(this.console())
  }

  console(): string {
    return this.#read('console')
  }

  async stop(): Promise<void> {
    this.#child.ref()
    // Of a program that could not be started there is no process: the kernel would take 0 for our own group.
    if (this.#child.pid !== undefined) this.#child.kill('SIGKILL')
    await Promise.race([this.#ended, setTimeout(STOP_DEADLINE, undefined, { ref: false })])
    if (endOf(this.#child) === undefined) {
      const seconds = STOP_DEADLINE / 1000
      throw new Error(`QEMU (process ${this.pid}) lives ${seconds} s after SIGKILL: ${this.directory} is left as it is`)
    }
    rmSync(this.directory, { recursive: true, force: true })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** Waits a little. Throws when QEMU has ended, or time is up. */
  async #goOn(end: number, complaint: string): Promise<void> {
    const ended = endOf(this.#child)
    if (ended !== undefined || Date.now() > end) {
      throw new Error(
        `QEMU ${ended ?? complaint}: ${this.#read('log') || 'it says nothing'}\nConsole:\n${this.console()}`,
      )
    }
    await setTimeout(10)
  }

  #read(name: string): string {
    const file = join(this.directory, name)
    return existsSync(file) ? readFileSync(file, 'latin1') : ''
  }
}

/** The machine of labs/kvm has one processor, and vCPUs that never idle would take most of it from their observer. */
async function yieldToObservers(socket: string): Promise<void> {
  const vcpus = (await monitor(socket, 'query-cpus-fast')) as { 'thread-id': number }[]
  for (const vcpu of vcpus) setPriority(vcpu['thread-id'], constants.priority.PRIORITY_LOW)
}

/** How a process has ended; `undefined` while it lives. */
function endOf({ pid, exitCode, signalCode }: ChildProcess): string | undefined {
  if (pid === undefined) return 'could not be run'
  if (signalCode !== null) return `was killed by ${signalCode}`
  return exitCode === null ? undefined : `ended with exit code ${exitCode}`
}
