import { setTimeout } from 'node:timers/promises'
import { type Intercept, open } from '@microvmi/core'
import { kvm } from '@microvmi/driver-kvm'
import type { QemuLab } from '@microvmi/lab-qemu'
import { runBaseline } from './baselines.ts'
import type { Row } from './table.ts'

const HITS = 300
/** Seconds of the guest's own time for which switches are counted. */
const SECONDS = 5

/**
 * Breakpoint events, at what the guest executes more often than they can be told: its system calls. The guest has one
 * vCPU, and a gdbstub of the user's that both use by turns. 0.9 x the rate of the C client is 1.11 x its time.
 */
export function breakpointEvents({ qmp, gdb }: QemuLab, address: bigint, program: string): Row {
  return {
    name: 'a breakpoint event',
    limit: 1.11,
    peer: 'C: client of the gdbstub',
    ours: () => timeHits(qmp, address),
    theirs: () => runBaseline(program, [gdb ?? '', `0x${address.toString(16)}`, HITS]),
  }
}

async function timeHits(qmp: string, address: bigint): Promise<number> {
  const vm = await open(kvm, { vm: qmp })
  try {
    let hits = 0
    let started = 0
    let ended = 0
    const breakpoint: Intercept<never> = vm.intercept({ kind: 'breakpoint', address }, () => {
      // The first one says when the guest has come by.
      if (hits === 0) started = performance.now()
      if (hits === HITS) {
        ended = performance.now()
        breakpoint.close()
      }
      hits += 1
    })
    await breakpoint.ended
    return ((ended - started) / HITS) * 1e6
  } finally {
    await vm.close()
  }
}

/** CR3 events with every `mov cr3` armed, beside the context switches that the guest itself counts meanwhile. */
export async function countSwitches(lab: QemuLab): Promise<{ readonly events: number; readonly switches: number }> {
  const vm = await open(kvm, { vm: lab.qmp })
  try {
    let events = 0
    const switches = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {
      events += 1
    })
    const first = await nextTick(lab)
    const before = events
    let last = first
    while (last.second < first.second + SECONDS) last = await nextTick(lab)
    const counted = events - before
    switches.close()
    return { events: counted, switches: last.switches - first.switches }
  } finally {
    await vm.close()
  }
}

async function nextTick(lab: QemuLab): Promise<NonNullable<ReturnType<QemuLab['tick']>>> {
  const before = lab.tick()?.second
  for (;;) {
    const tick = lab.tick()
    if (tick && tick.second !== before) return tick
    await setTimeout(2)
  }
}
