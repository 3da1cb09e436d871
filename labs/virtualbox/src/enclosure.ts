import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { LabUnavailable } from '@microvmi/lab-debian'
import type { Product } from './product.ts'

const DEADLINE = 20_000

/**
 * Mounts what VirtualBox needs into its root, and waits for the end of its input. $1 is the root, $2 the launcher.
 * What VirtualBox writes goes to memory: the root itself stays as it was unpacked.
 */
const SCRIPT = `
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount -t tmpfs -o mode=0700 tmpfs "$1/root"
mount --bind "$2" "$1/usr/lib/virtualbox/VBoxHeadless"
echo ready
exec cat
`

const PARENT = '/dev/shm'
const PREFIX = 'microvmi-virtualbox-lab-'

/** A new directory in memory, of mode 0700, named after this process. Those of processes that have ended go. */
function createDirectory(): string {
  for (const name of readdirSync(PARENT)) {
    const [, pid] = name.startsWith(PREFIX) ? name.slice(PREFIX.length - 1).split('-') : []
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(PARENT, name), { recursive: true, force: true })
  }
  return mkdtempSync(join(PARENT, `${PREFIX}${process.pid}-`))
}

/**
 * A place of its own for one VirtualBox: mounts and processes that nobody else sees, and that are gone with the
 * process that made them, however that ends.
 */
export class Enclosure {
  /** For what VirtualBox and its users exchange: the same path for both. */
  readonly directory: string
  /** A program that runs this VirtualBox's VBoxManage. */
  readonly vboxmanage: string
  readonly #holder: ChildProcess
  readonly #ended: Promise<unknown>
  /** The first process in the namespaces: with its end, all others in them have ended. */
  #first: number | undefined

  private constructor(holder: ChildProcess, directory: string) {
    this.#holder = holder
    this.#ended = once(holder, 'exit')
    this.directory = directory
    this.vboxmanage = join(directory, 'VBoxManage')
  }

  static async create({ root, launcher }: Product): Promise<Enclosure> {
    const namespaces = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child=KILL']
    const holder = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', '--', 'unshare', ...namespaces, '--', 'sh', '-c', SCRIPT, 'sh', root, launcher],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    )
    const enclosure = new Enclosure(holder, createDirectory())
    try {
      await enclosure.#ready()
      enclosure.#findFirst()
      enclosure.#writeProgram(root)
    } catch (error) {
      await enclosure.remove()
      throw error
    }
    return enclosure
  }

  /** The processes in it whose command line has this text. */
  processesWith(text: string): number[] {
    const namespace = namespaceOf(this.#first)
    if (namespace === undefined) return []
    return readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry))
      .map(Number)
      .filter((pid) => namespaceOf(pid) === namespace && commandLineOf(pid).includes(text))
  }

  /** Ends every process in it, and with the last one its mounts go. */
  async remove(): Promise<void> {
    this.#holder.kill('SIGKILL')
    await this.#ended
    for (const end = Date.now() + DEADLINE; this.#isInhabited(); await setTimeout(20)) {
      if (Date.now() > end) throw new Error(`process ${this.#first}, first of a lab's, does not end`)
    }
    rmSync(this.directory, { recursive: true, force: true })
  }

  async #ready(): Promise<void> {
    let complaint = ''
    this.#holder.stderr?.on('data', (text) => {
      complaint += text
    })
    const lines = createInterface({ input: this.#holder.stdout as NodeJS.ReadableStream })
    const signal = AbortSignal.timeout(DEADLINE)
    const isReady = await Promise.race([
      once(lines, 'line', { signal }).then(() => true),
      this.#ended.then(() => false),
    ])
    if (!isReady) throw new LabUnavailable(`needs the right to make namespaces and mounts: ${complaint.trim()}`)
  }

  /** The child that unshare has forked (man 5 proc_pid_task). */
  #findFirst(): void {
    const { pid } = this.#holder
    const [first] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
    this.#first = Number(first)
  }

  /** Whether the first process is there, and more than a corpse that nobody has fetched (man 5 proc_pid_stat). */
  #isInhabited(): boolean {
    const first = this.#first
    if (first === undefined) return false
    const stat = ofProcess(() => readFileSync(`/proc/${first}/stat`, 'utf8'))
    return stat !== undefined && !stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
  }

  #writeProgram(root: string): void {
    const enter = `nsenter --target ${this.#first} --mount --pid --`
    const environment = 'env -i HOME=/root LOGNAME=root USER=root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8'
    const program = `exec ${enter} ${environment} chroot '${root}' /usr/lib/virtualbox/VBoxManage "$@"`
    writeFileSync(this.vboxmanage, `#!/bin/sh\n${program}\n`)
    chmodSync(this.vboxmanage, 0o700)
  }
}

/** The namespace of its own number (man 7 namespaces). */
function namespaceOf(pid: number | undefined): string | undefined {
  return pid === undefined ? undefined : ofProcess(() => readlinkSync(`/proc/${pid}/ns/pid`))
}

function commandLineOf(pid: number): string {
  return ofProcess(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? ''
}

/** Undefined where the process has ended, or is another user's. */
function ofProcess(read: () => string): string | undefined {
  try {
    return read()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return undefined
    throw error
  }
}
