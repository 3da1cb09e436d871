import { rmSync } from 'node:fs'
import { open } from '@microvmi/core'
import { xen } from '@microvmi/driver-xen'
import { controlPage, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { cProgram } from './programs.ts'
import { type Amount, type Contestant, measure, type Task } from './series.ts'
import { cr3Events, dump, type PaperVm, pageRead, registers, wholeDump, wordRead } from './tasks.ts'

// In dom0: measures, and prints what was measured of each task as a line of JSON.
// usage: xen-dom0 PROGRAM AMOUNT     PROGRAM: the C program; AMOUNT: JSON

const MIB = 2 ** 20
const MEMORY = 128
const OUT = '/tmp/dump'
const READS = { registers: 100, page: 2000, word: 20_000 }
const EVENTS = { sync: 200, async: 400 }

const [program = '', amount = ''] = process.argv.slice(2)

/** A contestant of ours: a session for each loop. */
function microvmi(guest: XenGuest, loop: (vm: PaperVm, values: number) => Promise<number[]>): Contestant {
  return {
    name: 'microvmi',
    async loop(values) {
      const vm = await open(xen, { vm: guest.uuid, require: ['events.cr'] })
      try {
        return await loop(vm, values)
      } finally {
        await vm.close()
      }
    },
  }
}

/** One value after another. */
function each(value: (vm: PaperVm) => number | Promise<number>) {
  return async (vm: PaperVm, values: number): Promise<number[]> => {
    const all: number[] = []
    for (let count = 0; count < values; count++) all.push(await value(vm))
    return all
  }
}

async function setSwitching(guest: XenGuest, control: number, on: boolean): Promise<void> {
  const vm = await open(xen, { vm: guest.uuid })
  vm.memory.writeUint64(control + controlPage.flags, on ? BigInt(controlPage.flagSwitch) : 0n)
  await vm.close()
}

function tasksAtRest(guest: XenGuest, page: number): Task[] {
  const { domid } = guest
  return [
    {
      name: 'memory dump, 128 MiB',
      unit: 'ns',
      wanted: 1.2,
      contestants: [
        microvmi(
          guest,
          each((vm) => dump(vm, MEMORY * MIB, OUT)),
        ),
        cProgram(program, ['dump', domid, MEMORY * MIB, OUT]),
      ],
    },
    {
      name: 'register dump',
      unit: 'ns',
      // 0.6 x the rate.
      wanted: 1 / 0.6,
      contestants: [
        microvmi(
          guest,
          each((vm) => registers(vm, READS.registers)),
        ),
        cProgram(program, ['registers', domid, READS.registers]),
      ],
    },
    {
      name: 'dump to the last page',
      unit: 'ns',
      wanted: 1.5,
      valuesPerLoop: 1,
      contestants: [
        microvmi(
          guest,
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
          guest,
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
          guest,
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
      microvmi(guest, (vm, values) => cr3Events(vm, { events: EVENTS[way], values, asynchronous: way === 'async' })),
      cProgram(program, ['events', guest.domid, way, EVENTS[way]]),
    ],
  }))
}

async function tell(task: Task): Promise<void> {
  const started = performance.now()
  const measured = await measure('Xen', task, JSON.parse(amount) as Amount)
  console.error(`${task.name}: ${((performance.now() - started) / 1000).toFixed(0)} s`)
  console.log(JSON.stringify(measured))
  rmSync(OUT, { force: true })
}

const guest = await startGuest({ type: 'pvh', memoryMiB: MEMORY })
try {
  const { known, control } = await guest.ready()
  for (const task of tasksAtRest(guest, known.physical[0] ?? 0)) await tell(task)
  await setSwitching(guest, control, true)
  for (const task of eventTasks(guest)) await tell(task)
} finally {
  await guest.destroy()
}
