/**
 * FDP's speed beside a C client of the same protocol: both in turn against one server, several times, so that what
 * else the machine does meets both. Prints reads per second and the ratio of the medians.
 *
 * node --import tsx packages/driver-virtualbox/bench/fdp.ts
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { open } from '@microvmi/core'
import { FdpServer, GUEST } from '../src/fdp/server.testing.ts'
import { fdp } from '../src/index.ts'

const BASELINE = fileURLToPath(new URL('../../../bench/baselines/fdp-client.c', import.meta.url))
const ROUNDS = 5
const SECONDS = 0.5

const directory = mkdtempSync(join(tmpdir(), 'microvmi-bench-'))
const name = `microvmi bench ${process.pid}`
const server = await FdpServer.start(name, { spins: 2 ** 20, vcpus: 1 })
try {
  const program = join(directory, 'fdp-client')
  execFileSync('gcc', ['-O2', '-o', program, BASELINE])
  const vm = await open(fdp, { vm: name })
  // The guest's own vCPU would take a part of a processor from both.
  const pause = vm.pause()
  for (const size of [8, 4096, 65_536, 1_048_576]) {
    const into = new Uint8Array(size)
    const [ours, theirs]: [number[], number[]] = [[], []]
    for (let round = 0; round < ROUNDS; round++) {
      theirs.push(Number(execFileSync(program, [name, String(size), String(SECONDS), String(GUEST.known)])))
      ours.push(readsPerSecond(() => vm.memory.read(GUEST.known, into)))
    }
    const [our, their] = [median(ours), median(theirs)]
    console.log(
      `${size} B: ${our.toFixed(0)} reads/s, C client ${their.toFixed(0)} reads/s: ${(our / their).toFixed(2)} x`,
    )
  }
  pause.end()
  await vm.close()
} finally {
  await server[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
}

function readsPerSecond(read: () => void): number {
  for (let warm = 0; warm < 2000; warm++) read()
  const start = performance.now()
  let reads = 0
  for (; performance.now() < start + SECONDS * 1000; reads += 64) for (let i = 0; i < 64; i++) read()
  return reads / ((performance.now() - start) / 1000)
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? 0
}
