import { rmSync } from 'node:fs'
import { open } from '@microvmi/core'
import { xen } from '@microvmi/driver-xen'
import { controlPage, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { MEMORY_MIB, type PaperTask, type Plan } from './plan.ts'
import { command, cProgram } from './programs.ts'
import { measure, type Task } from './series.ts'
import { each, microvmi } from './sessions.ts'
import { cr3Events, dump, type PaperVm, pageRead, registers, wholeDump, wordRead } from './tasks.ts'

// In dom0: measures, and prints what was measured of each task as a line of JSON.
// usage: xen-dom0 PROGRAM PLAN     PROGRAM: the C program; PLAN: JSON

const GUEST = 'Xen'
const SIZE = MEMORY_MIB * 2 ** 20
const OUT = '/tmp/dump'
const READS = { registers: 100, page: 5000, word: 20_000 }
const EVENTS = { sync: 200, async: 400 }

const [program = '', json = ''] = process.argv.slice(2)
const plan = JSON.parse(json) as Plan

function tasksAtRest(guest: XenGuest, page: number): Task[] {
  const { domid } = guest
  const session = () => opened(guest)
  return [
    {
      name: `memory dump, ${MEMORY_MIB} MiB`,
      unit: 'ns',
      wanted: 1.2,
      contestants: [
        microvmi(
          session,
          each((vm) => dump(vm, SIZE, OUT)),
        ),
        cProgram(program, ['dump', domid, SIZE, OUT]),
        ...compared(guest, 'dump', 'ns'),
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
          each((vm) => registers(vm, READS.registers)),
        ),
        cProgram(program, ['registers', domid, 'all', READS.registers]),
        cProgram(program, ['registers', domid, 'cpu', READS.registers], 'C, the CPU record alone'),
        ...compared(guest, 'registers', 'ns'),
      ],
    },
    {
      name: 'dump up to the last page',
      unit: 'ns',
      wanted: 1.5,
      valuesPerLoop: 1,
      contestants: [
        microvmi(
          session,
          each((vm) => wholeDump(vm, OUT)),
        ),
        cProgram(program, ['sparse', domid, OUT]),
      ],
    },
    {
      name: 'hot read of 4 KiB',
      unit: 'ns',
      wanted: 1.5,
      contestants: [
        microvmi(
          session,
          each((vm) => pageRead(vm, page, READS.page)),
        ),
        cProgram(program, ['read', domid, page, 4096, READS.page]),
      ],
    },
    {
      name: 'hot read of 8 bytes',
      unit: 'ns',
      contestants: [
        microvmi(
          session,
          each((vm) => wordRead(vm, page, READS.word)),
        ),
        cProgram(program, ['read', domid, page, 8, READS.word]),
      ],
    },
  ]
}

function eventTasks(guest: XenGuest): Task[] {
  return (['sync', 'async'] as const).map((way) => ({
    name: way === 'sync' ? 'CR3 events' : 'CR3 events, asynchronous',
    unit: 'per second',
    wanted: 0.85,
    contestants: [
      microvmi(
        () => opened(guest),
        (vm, values) => cr3Events(vm, { events: EVENTS[way], values, asynchronous: way === 'async' }),
      ),
      cProgram(program, ['events', guest.domid, way, EVENTS[way]]),
      ...(way === 'sync' ? compared(guest, 'events', 'per second') : []),
    ],
  }))
}

function opened(guest: XenGuest): Promise<PaperVm> {
  return open(xen, { vm: guest.uuid, require: ['events.cr'] })
}

function compared({ domid, name, uuid }: XenGuest, task: PaperTask, unit: Task['unit']) {
  const line = plan.compare[task]
  return line === undefined ? [] : [command(line, unit, { DOMID: String(domid), NAME: name, UUID: uuid, OUT })]
}

/** Has two of the guest's processes make its kernel switch between them. */
async function beginSwitching(guest: XenGuest, control: number): Promise<void> {
  const vm = await open(xen, { vm: guest.uuid })
  vm.memory.writeUint64(control + controlPage.flags, BigInt(controlPage.flagSwitch))
  await vm.close()
}

async function tell(task: Task): Promise<void> {
  console.log(JSON.stringify(await measure(GUEST, task, plan)))
  rmSync(OUT, { force: true })
}

const guest = await startGuest({ type: 'pvh', memoryMiB: MEMORY_MIB })
try {
  const { known, control } = await guest.ready()
  for (const task of tasksAtRest(guest, known.physical[0] ?? 0)) await tell(task)
  await beginSwitching(guest, control)
  for (const task of eventTasks(guest)) await tell(task)
} finally {
  await guest.destroy()
}
