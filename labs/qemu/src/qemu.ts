import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { factsIn, type GuestFacts, lastTick, type Tick } from './facts.ts'
import { type Images, images } from './images.ts'
import { monitor } from './monitor.ts'
import { createRunDirectory, noteOwner } from './run-directory.ts'

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
  /** Waits until the guest's processes run, and returns what it told of itself. */
  ready(): Promise<GuestFacts>
  /** The guest's counts of the last second. */
  tick(): Tick | undefined
  /** All that the guest has written on its console. */
  console(): string
  /** Kills QEMU and removes what it left. */
  stop(): Promise<void>
}

const BOOT_DEADLINE = 120_000
const STOP_DEADLINE = 10_000

/**
 * Starts a Linux guest under software emulation, or on KVM inside the machine of labs/kvm. Without `detached`, it ends with this process, however that ends.
 * Throws `LabUnavailable` where it cannot come up.
 */
export async function startQemu(options: QemuOptions = {}): Promise<QemuLab> {
  const start = await images()
  const directory = createRunDirectory()
  const path = (name: string) => join(directory, name)
  const args = argumentsOf(options, start, path)
  const { root } = start
  const log = openSync(path('log'), 'w', 0o600)
  // The kernel ends QEMU when its parent has ended: no path leaves one behind.
  const guard = options.detached ? [] : ['setpriv', '--pdeathsig', 'KILL', '--']
  const [command = '', ...rest] = [...guard, join(root, 'usr/bin/qemu-system-x86_64'), ...args]
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
    if (start.accelerator === 'kvm' && options.monitor !== false) await yieldToObservers(lab.ownQmp)
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
    this.name = options.name ?? 'microvmi-lab'
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

  /** Waits for the sockets: then QEMU has read its command line. */
  async started(): Promise<void> {
    const socket = this.#hasMonitor ? this.ownQmp : join(this.directory, 'console')
    for (const end = Date.now() + STOP_DEADLINE; !existsSync(socket); await setTimeout(10)) {
      if (this.#child.exitCode !== null || this.#child.pid === undefined || Date.now() > end) {
        throw new Error(`QEMU did not start: ${this.#read('log') || 'it says nothing'}`)
      }
    }
  }

  async ready(): Promise<GuestFacts> {
    for (const end = Date.now() + BOOT_DEADLINE; Date.now() < end; await setTimeout(50)) {
      const facts = factsIn(this.console())
      if (facts) return facts
      if (this.#child.exitCode !== null) break
    }
    throw new Error(`the guest did not come up. QEMU: ${this.#read('log')}\nConsole:\n${this.console()}`)
  }

  tick(): Tick | undefined {
    return lastTick(this.console())
  }

  console(): string {
    return this.#read('console')
  }

  async stop(): Promise<void> {
    // Of a program that could not be started there is no process: the kernel would take 0 for our own group.
    if (this.#child.pid !== undefined) this.#child.kill('SIGKILL')
    await Promise.race([this.#ended, setTimeout(STOP_DEADLINE, undefined, { ref: false })])
    rmSync(this.directory, { recursive: true, force: true })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
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

function argumentsOf(
  options: QemuOptions,
  { root, kernel, initrd, accelerator }: Images,
  path: (name: string) => string,
): string[] {
  const size = `${options.memoryMiB ?? 512}M`
  const { ram = 'file', machine = 'q35', name = 'microvmi-lab' } = options
  const backend = {
    file: [`memory-backend-file,id=ram,size=${size},mem-path=${path('ram')},share=on`],
    memfd: [`memory-backend-memfd,id=ram,size=${size},share=on`],
    private: [],
  }[ram]
  const socket = (file: string) => `unix:${path(file)},server=on,wait=off`
  return [
    // A comma in an option's value is doubled.
    ...['-name', `guest=${name.replaceAll(',', ',,')}`],
    ...['-L', join(root, 'usr/share/qemu'), '-L', join(root, 'usr/share/seabios')],
    ...['-accel', accelerator, '-cpu', options.cpu ?? 'qemu64', '-smp', String(options.vcpus ?? 1), '-m', size],
    ...['-machine', ram === 'private' ? machine : `${machine},memory-backend=ram`],
    ...backend.flatMap((object) => ['-object', object]),
    ...['-display', 'none', '-nodefaults', '-nic', 'none', '-no-user-config'],
    ...['-kernel', kernel, '-initrd', initrd],
    ...['-append', options.commandLine ?? 'console=ttyS0 quiet nokaslr mitigations=off tsc=reliable panic=-1'],
    ...['-serial', `file:${path('console')}`],
    ...(options.monitor === false ? [] : ['-qmp', socket('qmp'), '-qmp', socket('own')]),
    ...(options.gdb ? ['-gdb', socket('gdb')] : []),
    ...(options.paused ? ['-S'] : []),
  ]
}
