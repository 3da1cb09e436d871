import { execFile } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Enclosure } from './enclosure.ts'
import { type Product, product } from './product.ts'

const run = promisify(execFile)
const MANAGE_DEADLINE = 60_000

/** How the VM is to be. */
export interface VirtualBoxOptions {
  /** The VM's name. Default `microvmi-lab`. */
  readonly name?: string
  readonly vcpus?: number
  /** Default 64. */
  readonly memoryMiB?: number
  /** What is reached at a TCP port: VirtualBox's own debug console, a GDB stub, or nothing. Default `native`. */
  readonly debugger?: 'native' | 'gdb' | 'none'
  /** Default true. */
  readonly started?: boolean
}

/** What the guest has where: see boot.S. */
export const GUEST = {
  count: 0x9000,
  known: 0x2_0000,
  knownLength: 0x4000,
  scratch: 0x3_0000,
  tables: [0x1_0000n, 0x1_1000n],
  r12: 0x1122_3344_5566_7788n,
  r13: 0x1313_1313n,
  lstar: 0xffff_ffff_8000_1234n,
} as const

/** What the guest has written at `GUEST.known`. */
export function knownContent(): Uint8Array {
  return Uint8Array.from({ length: GUEST.knownLength }, (_, index) => (7 * index + (index >> 8)) & 0xff)
}

/** A VirtualBox with one VM. */
export interface VirtualBoxLab extends AsyncDisposable {
  readonly name: string
  /** The program to use as VBoxManage. */
  readonly vboxmanage: string
  /** A directory whose path is the same for VirtualBox and for this process. */
  readonly directory: string
  readonly port: number
  /** The virtual address of an instruction that vCPU 0 executes some hundred times a second: it writes CR3. */
  readonly round: bigint
  /** Runs VBoxManage, and returns what it prints. */
  manage(...args: string[]): Promise<string>
  /** Returns when the guest is up. */
  start(): Promise<void>
  /** Kills the VM's process. */
  kill(): Promise<void>
  /** Ends everything, and removes what it left. */
  stop(): Promise<void>
}

/** Makes a VM and starts it. Throws `LabUnavailable` where it cannot come up. */
export async function startVirtualBox(options: VirtualBoxOptions = {}): Promise<VirtualBoxLab> {
  const made = await product()
  const lab = new Lab(await Enclosure.create(made), options, made, await freePort())
  try {
    await lab.make(made.floppy)
    if (options.started ?? true) await lab.start()
  } catch (error) {
    await lab.stop()
    throw error
  }
  return lab
}

class Lab implements VirtualBoxLab {
  readonly name: string
  readonly port: number
  readonly round: bigint
  readonly #enclosure: Enclosure
  readonly #options: VirtualBoxOptions

  constructor(enclosure: Enclosure, options: VirtualBoxOptions, { round }: Product, port: number) {
    this.#enclosure = enclosure
    this.#options = options
    this.round = round
    this.name = options.name ?? 'microvmi-lab'
    this.port = port
  }

  get vboxmanage(): string {
    return this.#enclosure.vboxmanage
  }

  get directory(): string {
    return this.#enclosure.directory
  }

  async manage(...args: string[]): Promise<string> {
    const { stdout } = await run(this.vboxmanage, args, { timeout: MANAGE_DEADLINE })
    return stdout
  }

  async make(floppy: string): Promise<void> {
    const { vcpus = 1, memoryMiB = 64 } = this.#options
    const disk = join(this.directory, 'floppy.img')
    copyFileSync(floppy, disk)
    await this.manage(
      'createvm',
      '--name',
      this.name,
      '--ostype',
      'Other_64',
      '--register',
      '--basefolder',
      join(this.directory, 'vms'),
    )
    const machine = ['--memory', String(memoryMiB), '--cpus', String(vcpus), '--vm-execution-engine', 'interpreter']
    const little = ['--audio-enabled', 'off', '--usb-ohci', 'off', '--nic1', 'none', '--boot1', 'floppy']
    const apic = ['--ioapic', 'on', '--x86-long-mode', 'on']
    await this.manage('modifyvm', this.name, ...machine, ...little, ...apic)
    // Without the kernel module there is no hardware virtualization: then the interpreter runs the guest.
    await this.manage('setextradata', this.name, 'VBoxInternal/HM/FallbackToIEM', '1')
    await this.manage('storagectl', this.name, '--name', 'floppy', '--add', 'floppy')
    const place = ['--storagectl', 'floppy', '--port', '0', '--device', '0', '--type', 'fdd']
    await this.manage('storageattach', this.name, ...place, '--medium', disk)
  }

  async start(): Promise<void> {
    const { debugger: provider = 'native' } = this.#options
    const console = ['--guest-debug-address', '127.0.0.1', '--guest-debug-port', String(this.port)]
    const io = provider === 'none' ? 'none' : 'tcp'
    // Set before each start: VirtualBox forgets `native` when its service ends.
    await this.manage(
      ...['modifyvm', this.name, '--guest-debug-provider', provider, '--guest-debug-io-provider', io, ...console],
    )
    await this.manage('startvm', this.name, '--type', 'headless')
    await this.#guestIsUp()
  }

  /** The guest has its known registers once it has written its known content: a second or two after its start. */
  async #guestIsUp(): Promise<void> {
    for (const end = Date.now() + MANAGE_DEADLINE; Date.now() < end; await setTimeout(200)) {
      const said = await this.manage('debugvm', this.name, 'getregisters', 'r12', 'lstar')
      if ([GUEST.r12, GUEST.lstar].every((value) => said.includes(`0x${value.toString(16).padStart(16, '0')}`))) return
    }
    throw new Error('the guest does not come up')
  }

  async kill(): Promise<void> {
    for (const pid of this.#processes()) process.kill(pid, 'SIGKILL')
    for (let tries = 0; tries < 100 && this.#processes().length > 0; tries++) await setTimeout(50)
  }

  stop(): Promise<void> {
    return this.#enclosure.remove()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #processes(): number[] {
    return this.#enclosure.processesWith('VBoxHeadless')
  }
}

/** A port that is free now. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no TCP port is to be had')
  return address.port
}
