import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const PROGRAM = fileURLToPath(new URL('./client.testing.ts', import.meta.url))

/** A session in a process of its own, at work: what it can do is in client.testing.ts. */
export class ClientProcess implements AsyncDisposable {
  readonly child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #seen: string[] = []
  #wake: () => void = () => {}

  private constructor(name: string, what: string) {
    this.child = spawn(process.execPath, ['--import', 'tsx', PROGRAM, name, what], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#ended = once(this.child, 'exit')
    if (!this.child.stdout) throw new Error('no pipe')
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.#seen.push(line)
      this.#wake()
    })
  }

  static async start(name: string, what: string): Promise<ClientProcess> {
    const client = new ClientProcess(name, what)
    await client.line('begun')
    return client
  }

  /** Resolves once it has said this. */
  async line(text: string): Promise<void> {
    while (!this.#seen.includes(text)) {
      if (this.child.exitCode !== null) throw new Error(`the client ended with ${this.child.exitCode}`)
      const more = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      await Promise.race([more, this.#ended])
    }
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.#ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }
}
