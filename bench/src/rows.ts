import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Vm } from '@microvmi/core'
import { dumpMemory } from '@microvmi/dump'
import type { QemuLab } from '@microvmi/lab-qemu'
import { runBaseline, timeCommand } from './baselines.ts'
import { randomPages } from './random.ts'
import type { Row } from './table.ts'

/** What the rows need of a VM. */
export type BenchVm = Vm<'memory.read' | 'memory.regions' | 'pause'>

const READS = 100_000
const CALLS = 40
const SCATTERED = 512

/** A VM under measurement: paused for all of it. */
export interface Subject {
  readonly lab: QemuLab
  readonly vm: BenchVm
  /** Bytes of RAM, from address 0 on. */
  readonly size: number
}

/** Dumps of shared RAM: `what` says what is in it. */
export function sharedDumps({ lab, vm }: Subject, what: string): Row[] {
  const out = join(lab.directory, 'out')
  const peer = (command: string, args: readonly string[]) => () => {
    rmSync(out, { force: true })
    return timeCommand(command, args)
  }
  const ram = lab.ramFile ?? ''
  const ours = () => timeDump(vm, out)
  const copy = peer('cp', ['--sparse=always', ram, out])
  const dd = peer('dd', ['bs=1M', `if=${ram}`, `of=${out}`])
  return [
    { name: `dump of ${what}, shared`, limit: 1.2, peer: 'cp --sparse=always', ours, theirs: copy },
    { name: `dump of ${what}, shared`, limit: 1, peer: 'dd bs=1M', ours, theirs: dd },
  ]
}

/** A dump of private RAM. */
export function privateDump({ lab, vm, size }: Subject, program: string, hostAddress: number): Row {
  const out = join(lab.directory, 'out')
  return {
    name: 'dump of 512 MiB, private',
    limit: 1.2,
    peer: 'C: process_vm_readv of 1 MiB, write',
    ours: () => timeDump(vm, out),
    theirs: () => {
      rmSync(out, { force: true })
      return runBaseline(program, [lab.pid, hostAddress, size, 'dump', out])
    },
  }
}

/** The command line's dump as a whole process, beside what a dump may take in process, and two bare starts of node. */
export function commandLineDump({ lab }: Subject, cli: string, directory: string): Row {
  const out = join(lab.directory, 'out')
  return {
    name: 'microvmi dump, whole process',
    limit: 1,
    peer: '1.2 x cp --sparse=always + 2 x node -e 0',
    ours: () => {
      rmSync(out, { force: true })
      const started = performance.now()
      execFileSync(process.execPath, [cli, 'dump', `kvm:${lab.ownQmp}`, out], { cwd: directory, stdio: 'ignore' })
      return (performance.now() - started) * 1e6
    },
    theirs: () => {
      const node = timeCommand(process.execPath, ['-e', '0']) + timeCommand(process.execPath, ['-e', '0'])
      rmSync(out, { force: true })
      return 1.2 * timeCommand('cp', ['--sparse=always', lab.ramFile ?? '', out]) + node
    },
  }
}

/** Random reads from shared RAM. */
export function sharedReads({ lab, vm, size }: Subject, program: string): Row[] {
  const addresses = randomPages(READS, size)
  const into = new Uint8Array(4096)
  const { memory } = vm
  const ram = lab.ramFile ?? ''
  return [
    {
      name: 'random 4 KiB, shared',
      limit: 1.3,
      peer: 'C: memcpy from the mapping',
      ours: () =>
        timePerItem(READS, () => {
          for (const address of addresses) memory.read(address, into)
        }),
      theirs: () => runBaseline(program, [ram, 'copy', READS]),
    },
    {
      name: 'readUint64 at random, shared',
      limit: 10,
      peer: 'C: load from the mapping',
      ours: () =>
        timePerItem(READS, () => {
          let index = 0
          for (const address of addresses) memory.readUint64(address + 8 * (index++ % 512))
        }),
      theirs: () => runBaseline(program, [ram, 'load', READS]),
    },
  ]
}

/** Scattered reads of private RAM. */
export function privateReads({ lab, vm, size }: Subject, program: string, hostAddress: number): Row {
  const buffers = Array.from({ length: SCATTERED }, () => new Uint8Array(4096))
  const addresses = randomPages(CALLS * SCATTERED, size)
  const calls = Array.from({ length: CALLS }, (_, call) =>
    buffers.map((into, index) => ({ address: addresses[call * SCATTERED + index] ?? 0, into })),
  )
  return {
    name: '512 scattered pages a call, private, one page',
    limit: 1.3,
    peer: 'C: process_vm_readv of 512',
    ours: () =>
      timePerItem(CALLS * SCATTERED, () => {
        for (const call of calls) vm.memory.readMany(call)
      }),
    theirs: () => runBaseline(program, [lab.pid, hostAddress, size, 'scattered', CALLS]),
  }
}

async function timeDump(vm: BenchVm, out: string): Promise<number> {
  rmSync(out, { force: true })
  const started = performance.now()
  await dumpMemory(vm, out)
  return (performance.now() - started) * 1e6
}

/** Nanoseconds of processor time for one of `count`: waiting for a busy machine's processor is not part of it. */
function timePerItem(count: number, work: () => void): number {
  const started = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(started)
  return ((user + system) * 1000) / count
}
