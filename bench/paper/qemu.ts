import { join } from 'node:path'
import { open } from '@microvmi/core'
import { kvm } from '@microvmi/driver-kvm'
import { type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { buildBaselines } from '../src/baselines.ts'
import { MEMORY_MIB, type PaperTask, type Plan } from './plan.ts'
import { command, cProgram, cProgramForEach } from './programs.ts'
import { type Measured, measure, type Task } from './series.ts'
import { each, microvmi } from './sessions.ts'
import { cr3Events, dump, type PaperVm, registers } from './tasks.ts'

const GUEST = 'QEMU'
const READS = 10
const EVENTS = 20
const SIZE = MEMORY_MIB * 2 ** 20

/** Measures the tasks on a guest of stock QEMU under software emulation. */
export async function measureOnQemu(plan: Plan, report: (measured: Measured) => void): Promise<void> {
  const programs = await buildBaselines()
  const lab = await startQemu({ memoryMiB: MEMORY_MIB, vcpus: 1, gdb: true })
  try {
    await lab.ready()
    const site = await busiestSite(lab)
    for (const task of tasksOn(lab, { programs, site, plan })) report(await measure(GUEST, task, plan))
  } finally {
    await lab.stop()
  }
}

function tasksOn(lab: QemuLab, { programs, site, plan }: { programs: string; site: bigint; plan: Plan }): Task[] {
  const { ramFile = '', gdb = '' } = lab
  const out = join(lab.directory, 'out')
  const session = () => opened(lab)
  const environment = { QMP: lab.qmp, GDB: gdb, RAM: ramFile, OUT: out, NAME: lab.name }
  const compared = (task: PaperTask, unit: Task['unit']) => {
    const line = plan.compare[task]
    return line === undefined ? [] : [command(line, unit, environment)]
  }
  return [
    {
      name: `memory dump, ${MEMORY_MIB} MiB`,
      unit: 'ns',
      wanted: 1.2,
      contestants: [
        microvmi(
          session,
          each((vm) => dump(vm, SIZE, out)),
        ),
        cProgram(join(programs, 'mapped'), [ramFile, 'dump', out]),
        ...compared('dump', 'ns'),
      ],
    },
    {
      name: 'register dump',
      unit: 'ns',
      // 0.6 x the rate.
      wanted: 1 / 0.6,
      contestants: [
        microvmi(
          session,
          each((vm) => registers(vm, READS)),
        ),
        cProgramForEach(join(programs, 'qmp'), [lab.ownQmp, join(lab.directory, 'state'), READS], (printed) => printed),
        ...compared('registers', 'ns'),
      ],
    },
    {
      name: 'CR3 events',
      unit: 'per second',
      wanted: 0.85,
      contestants: [
        microvmi(session, (vm, values) => cr3Events(vm, { events: EVENTS, values })),
        cProgramForEach(join(programs, 'gdb'), [gdb, `0x${site.toString(16)}`, EVENTS], (printed) => 1e9 / printed),
        ...compared('events', 'per second'),
      ],
    },
  ]
}

function opened(lab: QemuLab): Promise<PaperVm> {
  return open(kvm, { vm: lab.qmp })
}

/** The instruction that the guest's kernel writes CR3 with most: where the C program has its breakpoint. */
async function busiestSite(lab: QemuLab): Promise<bigint> {
  const vm = await opened(lab)
  const hits = new Map<bigint, number>()
  let seen = 0
  try {
    for await (const { registers } of vm.intercept({ kind: 'cr', register: 'cr3' })) {
      const { rip } = registers ?? vm.readRegisters(0)
      hits.set(rip, (hits.get(rip) ?? 0) + 1)
      seen += 1
      if (seen === 50) break
    }
  } finally {
    await vm.close()
  }
  const [busiest] = [...hits].sort(([, a], [, b]) => b - a)
  return busiest?.[0] ?? 0n
}
