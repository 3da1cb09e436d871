import { fork } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Calls } from './peer-process.testing.ts'

type Remote = { [Name in keyof Calls]: (...args: Parameters<Calls[Name]>) => Promise<Awaited<ReturnType<Calls[Name]>>> }

/** A process with peers in it, and a directory for the sockets that they dial in at. */
export interface Peers extends Remote {
  readonly directory: string
  /** A path for a socket. */
  path(name: string): string
  end(): void
}

/** Starts the process. */
export async function startPeers(): Promise<Peers> {
  const directory = mkdtempSync(join(tmpdir(), 'kvmi-'))
  const program = fileURLToPath(new URL('./peer-process.testing.ts', import.meta.url))
  const child = fork(program, [], { execArgv: ['--import', 'tsx'], serialization: 'advanced' })
  const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>()
  let next = 0
  const answer = (id: number) => new Promise<never>((resolve, reject) => waiting.set(id, { resolve, reject }))
  child.on('message', ({ id, result, error }: { id: number; result: never; error?: string }) => {
    const waiter = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) waiter?.resolve(result)
    else waiter?.reject(new Error(error))
  })
  child.on('exit', (code) => {
    for (const { reject } of waiting.values()) reject(new Error(`the peers' process ended with ${code}`))
  })
  await answer(next)
  const call =
    (method: string) =>
    (...args: unknown[]) => {
      next += 1
      child.send({ id: next, method, args })
      return answer(next)
    }
  const remote = new Proxy({} as Remote, { get: (_, method) => call(String(method)) })
  return new Proxy({} as Peers, {
    get(_, name) {
      if (name === 'then') return undefined
      if (name === 'directory') return directory
      if (name === 'path') return (one: string) => join(directory, one)
      if (name !== 'end') return remote[name as keyof Calls]
      return () => {
        child.kill('SIGKILL')
        rmSync(directory, { recursive: true, force: true })
      }
    },
  })
}
