import { join } from 'node:path'
import { open, type Vm } from '@microvmi/core'
import { fdp } from '@microvmi/driver-virtualbox'
import { FdpServer, GUEST } from '../../packages/driver-virtualbox/src/fdp/server.testing.ts'
import { runBaseline } from './baselines.ts'
import type { Row } from './table.ts'

/**
 * Reads over FDP, beside a C client of the protocol: by turns through the same shared memory, against the same server.
 * Wall time, for both wait for the server on another processor.
 *
 * @param baselines the directory of the C programs
 */
export async function withFdpRows(baselines: string, work: (row: Row) => Promise<void>): Promise<void> {
  const name = `microvmi bench ${process.pid}`
  // It looks as often as the real one before it sleeps.
  const server = await FdpServer.start(name, { spins: 2 ** 20 })
  try {
    const vm = await open(fdp, { vm: name })
    // The guest's vCPU would take a part of a processor from both.
    const pause = vm.pause()
    for (const [size, title, count] of [
      [4096, '4 KiB', 100_000],
      [65_536, '64 KiB', 10_000],
      [1_048_576, '1 MiB', 400],
    ] as const) {
      await work(rowOf(vm, join(baselines, 'fdp'), size, title, count))
    }
    pause.end()
    await vm.close()
  } finally {
    await server[Symbol.asyncDispose]()
  }
}

function rowOf(vm: Vm<'memory.read'>, program: string, size: number, title: string, count: number): Row {
  const into = new Uint8Array(size)
  const { memory, name } = vm
  return {
    name: `${title} over FDP`,
    limit: 2,
    peer: 'C: a client of the same server',
    ours() {
      const started = performance.now()
      for (let read = 0; read < count; read++) memory.read(GUEST.known, into)
      return ((performance.now() - started) * 1e6) / count
    },
    theirs: () => runBaseline(program, [name, GUEST.known, size, count]),
  }
}
