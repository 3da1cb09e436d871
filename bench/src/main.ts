import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { open } from '@microvmi/core'
import { kvm } from '@microvmi/driver-kvm'
import { dumpMemory } from '@microvmi/dump'
import { monitor, type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { buildBaselines } from './baselines.ts'
import { breakpointEvents, countSwitches } from './events.ts'
import { installCli } from './installed-cli.ts'
import { commandLineDump, privateDump, privateReads, type Subject, sharedDumps, sharedReads } from './rows.ts'
import { withFdpRows } from './rows-over-fdp.ts'
import { markdown, measure, type Result } from './table.ts'

const ROUNDS = 9
const MIB = 2 ** 20
const SIZE = 512

const baselines = await buildBaselines()
const results: Result[] = []

console.error(`${ROUNDS} rounds a row, ours and the peer's by turns; medians`)

await withFdpRows(baselines, add)

await withGuest({ ram: 'file' }, async (subject) => {
  for (const row of sharedDumps(subject, '512 MiB of a Linux guest')) await add(row)
  const cli = installCli()
  try {
    await add(commandLineDump(subject, cli.main, cli.directory))
  } finally {
    cli.remove()
  }
  const before = anonymousMemory()
  await dumpMemory(subject.vm, join(subject.lab.directory, 'out'), { overwrite: true })
  console.error(
    `anonymous memory that a dump adds: ${((anonymousMemory() - before) / MIB).toFixed(1)} MiB (wanted: ≤ 64)`,
  )
  fill(subject.lab.ramFile ?? '')
  for (const row of sharedReads(subject, join(baselines, 'mapped'))) await add(row)
  for (const row of sharedDumps(subject, '512 MiB without zeros')) await add(row)
})

await withGuest({ ram: 'private' }, async (subject) => {
  const hostAddress = await hostAddressOf(subject.lab)
  await add(privateDump(subject, join(baselines, 'process'), hostAddress))
  await add(privateReads(subject, join(baselines, 'process'), hostAddress))
})

const lab = await startQemu({ memoryMiB: SIZE, vcpus: 1, gdb: true })
try {
  const { symbols } = await lab.ready()
  await add(breakpointEvents(lab, symbols.entry_SYSCALL_64 ?? 0n, join(baselines, 'gdb')))
  const { events, switches } = await countSwitches(lab)
  console.error(`CR3 events: ${events}; context switches, by the guest's own count: ${switches}`)
} finally {
  await lab.stop()
}

const qemu = execFileSync('uname', ['-m'], { encoding: 'utf8' }).trim()
console.log(`\nNode ${process.version}, ${cpus().length} x ${cpus()[0]?.model}, Linux ${release()} ${qemu}\n`)
console.log(markdown(results))
if (process.argv.includes('--json')) console.log(JSON.stringify(results))

async function add(row: Parameters<typeof measure>[0]): Promise<void> {
  const result = await measure(row, ROUNDS)
  console.error(`${result.name}: ${result.ratio.toFixed(2)} x ${result.peer}`)
  results.push(result)
}

async function withGuest(
  options: { ram: 'file' | 'private' },
  work: (subject: Subject) => Promise<void>,
): Promise<void> {
  const lab = await startQemu({ ...options, memoryMiB: SIZE })
  try {
    await lab.ready()
    const vm = await open(kvm, { vm: lab.qmp })
    const lease = vm.pause()
    try {
      await work({ lab, vm, size: SIZE * MIB })
    } finally {
      lease.end()
      await vm.close()
    }
  } finally {
    await lab.stop()
  }
}

/** Random bytes in all of the guest's RAM: it will not run any more. */
function fill(ramFile: string): void {
  const fd = openSync(ramFile, 'r+')
  const bytes = randomFillSync(Buffer.alloc(MIB))
  for (let at = 0; at < SIZE; at++) writeSync(fd, bytes, 0, MIB, at * MIB)
  closeSync(fd)
}

async function hostAddressOf(lab: QemuLab): Promise<number> {
  const answer = await monitor(lab.ownQmp, 'human-monitor-command', { 'command-line': 'gpa2hva 0' })
  return Number(/is (0x[0-9a-f]+)/.exec(String(answer))?.[1])
}

/** RssAnon of this process, in bytes (proc_pid_status(5)). */
function anonymousMemory(): number {
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}
