import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** Peers in processes of their own: ours waits with its thread blocked. */
export class Peers {
  readonly #program: string
  readonly #children: ChildProcess[] = []

  /** @param program the file of a peer, which prints its port */
  constructor(program: URL) {
    this.#program = fileURLToPath(program)
  }

  /** Starts one of this manner; returns its port. */
  async start(manner: string): Promise<number> {
    const args = ['--import', 'tsx', this.#program, manner]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#children.push(child)
    const [port] = await once(createInterface({ input: child.stdout }), 'line')
    return Number(port)
  }

  /** Ends them all, and returns when they have ended. */
  async stop(): Promise<void> {
    const ends = this.#children.splice(0).map((child) => {
      const isOver = child.exitCode !== null || child.signalCode !== null
      const ended = isOver ? undefined : once(child, 'exit')
      child.kill('SIGKILL')
      return ended
    })
    await Promise.all(ends)
  }
}
