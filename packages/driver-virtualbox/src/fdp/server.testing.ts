import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once as onceEmitted } from 'node:events'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { once } from '@microvmi/lab-debian'
import { lockPath } from './lock-file.ts'

const SOURCES = fileURLToPath(new URL('../../testing', import.meta.url))
const FILES = readdirSync(SOURCES).sort()

/** Why no server can run here; undefined where it can. */
export const hindrance: string | undefined = findHindrance()

function findHindrance(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'needs x86-64 Linux'
  const hasCompiler = spawnSync('gcc', ['--version'], { stdio: 'ignore' }).status === 0
  return hasCompiler || process.env.MICROVMI_LABS === 'required' ? undefined : 'needs gcc'
}

/** A title for tests that need a server: with the reason where they are skipped. */
export function titled(title: string): string {
  return hindrance ? `${title} (skipped: ${hindrance})` : title
}

/** How a server is to be. */
export interface FdpServerOptions {
  readonly vcpus?: number
  readonly memoryMiB?: number
  /** As the Windows build lays requests out. */
  readonly isPacked?: boolean
  /** How often it looks before it sleeps; the real one does 2 ** 20 times, which takes a processor for itself. */
  readonly spins?: number
}

/** What the guest in the server has where: see testing/fdp-machine.h. */
export const GUEST = {
  code: 0x20_0000,
  /** Offsets in the code. */
  wrmsr: 1,
  movCr3: 3,
  increment: 6,
  codeVirtual: 0xffff_ffff_8020_0000n,
  tables: [0x30_0000n, 0x31_0000n],
  counters: 0x40_0000,
  known: 0x50_0000,
  scratch: 0x60_0000,
  lstar: 0xc000_0082,
  pat: 0x0007_0406_0007_0406n,
} as const

/** What RAM holds that nothing else is in. */
export function patternAt(address: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => {
    const at = address + index
    return (at * 7 + Math.floor(at / 256) + Math.floor(at / 65_536) * 13) % 251
  })
}

/** The program, compiled once for each state of its sources. */
async function compiled(isPacked: boolean): Promise<string> {
  const hash = createHash('sha256')
  for (const file of FILES) hash.update(readFileSync(join(SOURCES, file)))
  const name = `fdp-server-${isPacked ? 'packed-' : ''}${hash.digest('hex').slice(0, 16)}`
  const directory = await once(name, async (into) => {
    const sources = FILES.filter((file) => file.endsWith('.c')).map((file) => join(SOURCES, file))
    const options = ['-O2', '-Wall', '-Werror', '-pthread', ...(isPacked ? ['-DPACKED'] : [])]
    await promisify(execFile)('gcc', [...options, '-o', join(into, 'fdp-server'), ...sources], { timeout: 60_000 })
  })
  return join(directory, 'fdp-server')
}

/** A server that runs, with its guest. */
export class FdpServer implements AsyncDisposable {
  readonly name: string
  readonly #child: ChildProcess
  readonly #lines: Interface
  readonly #ended: Promise<unknown>

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
    this.#ended = onceEmitted(child, 'exit')
    this.#lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  }

  /** It ends with this process, however that ends. */
  static async start(name: string, options: FdpServerOptions = {}): Promise<FdpServer> {
    const { vcpus = 1, memoryMiB = 16, isPacked = false, spins = 2000 } = options
    const program = await compiled(isPacked)
    const child = spawn(program, [name, String(vcpus), String(memoryMiB), String(spins)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const server = new FdpServer(name, child)
    await server.#line()
    return server
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  /**
   * Asks it to misbehave: `stall 1`, or once: `delay MILLISECONDS`, `status BYTE`, `size BYTES`, `byte VALUE`,
   * `refuse 1` (a read). Or to serve a register no longer: `unserved NUMBER`, -1 for none. Or to stop the VM as
   * another program does: `pause 1`.
   */
  async ask(what: string): Promise<void> {
    const done = this.#line()
    this.#child.stdin?.write(`${what}\n`)
    await done
  }

  /** Kills it, and leaves what it had made. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Ends it, and removes what it had made. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
    const objects = [this.name, `CPU_${this.name}`].map((name) => join('/dev/shm', name))
    for (const path of [...objects, lockPath('/dev/shm', this.name)]) rmSync(path, { force: true })
  }

  async #line(): Promise<void> {
    await Promise.race([
      onceEmitted(this.#lines, 'line'),
      this.#ended.then(() => Promise.reject(new Error(`the FDP server '${this.name}' has ended`))),
    ])
  }
}
