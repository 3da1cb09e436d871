import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { type Guest, register } from '@microvmi/conformance'
import { knownPage, monitor, type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { afterAll, describe, test } from 'vitest'
import { kvm } from './index.ts'

const MIB = 2 ** 20
const MEMORY = 128 * MIB
/** The kernel is told of less memory than there is: the rest is nobody's. */
const USED = 96 * MIB
/** Where `rounds` is among the counters that the guest's processes share (struct shared, labs/qemu/guest/init.c). */
const ROUNDS = 24

let running: { lab: QemuLab; guest: Guest } | undefined
let hasVanished = false

register(
  {
    driver: kvm,
    slowness: 2,
    startup: 60_000,
    async guest() {
      if (running && !existsSync(`/proc/${running.lab.pid}`)) {
        await running.lab.stop()
        running = undefined
        hasVanished = true
      }
      running ??= await bringUp()
      return running.guest
    },
  },
  { describe, test, after: afterAll },
)
afterAll(() => running?.lab.stop())

async function bringUp(): Promise<{ lab: QemuLab; guest: Guest }> {
  const lab = await startQemu({
    name: 'conformance',
    machine: 'pc',
    vcpus: 2,
    memoryMiB: MEMORY / MIB,
    commandLine: `console=ttyS0 quiet nokaslr mitigations=off tsc=reliable mem=${USED / MIB}M`,
  })
  // The cases that end a guest come last, and ask nothing of the programs in it: no need to wait for these again.
  const inside = hasVanished ? {} : await known(lab)
  const guest: Guest = {
    vm: String(lab.pid),
    options: { qmp: lab.qmp },
    sessions: 'one',
    vcpuCount: 2,
    ...inside,
    provoke: {
      lifecycle: {
        request: { kind: 'lifecycle' },
        async provoke() {
          await monitor(lab.ownQmp, 'stop')
          await monitor(lab.ownQmp, 'cont')
        },
      },
    },
    async vanish() {
      process.kill(lab.pid, 'SIGKILL')
      while (existsSync(`/proc/${lab.pid}`)) await setTimeout(10)
    },
  }
  return { lab, guest }
}

/** What the guest's own programs tell. */
async function known(lab: QemuLab): Promise<Pick<Guest, 'memory' | 'registers' | 'progress'>> {
  const { known, marks } = await lab.ready()
  return {
    memory: {
      known: known.physical.map((address, index) => ({ address, bytes: knownPage(index) })),
      end: MEMORY,
      hole: { start: MEMORY, length: 16 * MIB },
      scratch: { address: USED + 16 * MIB, length: MIB },
    },
    registers: {
      absent: ['tsc'],
      known: (vcpu) => printedRegisters(lab, vcpu),
      writable: { cr2: 0x1234_5000n, cr8: 2n, kernelGsBase: 0xffff_8880_0000_1000n },
    },
    progress: () => rounds(lab, marks.counters),
  }
}

/** Some of what QEMU itself prints. */
async function printedRegisters(lab: QemuLab, vcpu: number) {
  const text = await monitor(lab.ownQmp, 'human-monitor-command', {
    'command-line': 'info registers',
    'cpu-index': vcpu,
  })
  const word = (name: string) => BigInt(`0x${new RegExp(`${name}=([0-9a-f]+)`).exec(String(text))?.[1]}`)
  return { rip: word('RIP'), rsp: word('RSP'), r15: word('R15'), cr3: word('CR3'), efer: word('EFER') }
}

/** What two processes of the guest count together, from its RAM file. */
function rounds(lab: QemuLab, counters: number): number {
  const fd = openSync(lab.ramFile ?? '', 'r')
  try {
    const word = Buffer.alloc(8)
    readSync(fd, word, 0, 8, counters + ROUNDS)
    return Number(word.readBigUInt64LE())
  } finally {
    closeSync(fd)
  }
}
