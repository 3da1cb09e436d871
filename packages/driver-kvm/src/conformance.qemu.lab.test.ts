import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { type Guest, register, Skipped } from '@microvmi/conformance'
import { knownPage, LabUnavailable, monitor, type QemuLab, type QemuOptions, startQemu } from '@microvmi/lab-qemu'
import { afterAll, describe, test } from 'vitest'
import { kvm } from './index.ts'
import { provocations } from './provocations.testing.ts'

const MIB = 2 ** 20
const MEMORY = 256 * MIB
/** The kernel is told of less memory than there is: the rest is nobody's. */
const USED = 192 * MIB
/** Where `rounds` is among the counters that the guest's processes share (struct shared, labs/qemu/guest/init.c). */
const ROUNDS = 24

describe.each([
  ['shared RAM', { ram: 'file' }],
  ['private RAM', { ram: 'private' }],
] as const)('%s', (_, options) => {
  let running: { lab: QemuLab; guest: Guest } | undefined

  register(
    {
      driver: kvm,
      slowness: 4,
      startup: 60_000,
      async guest() {
        if (running && !existsSync(`/proc/${running.lab.pid}`)) {
          await running.lab.stop()
          running = undefined
        }
        running ??= await bringUp(options).catch(skipWithout)
        return running.guest
      },
    },
    { describe, test, after: afterAll },
  )
  afterAll(() => running?.lab.stop())
})

/** Where the lab cannot come up, every case is skipped with that reason, or fails with it when labs are required. */
function skipWithout(error: unknown): never {
  if (error instanceof LabUnavailable && process.env.MICROVMI_LABS !== 'required') throw new Skipped(error.message)
  throw error
}

async function bringUp(options: QemuOptions): Promise<{ lab: QemuLab; guest: Guest }> {
  const lab = await startQemu({
    ...options,
    name: 'conformance',
    vcpus: 2,
    memoryMiB: MEMORY / MIB,
    commandLine: `console=ttyS0 quiet nokaslr mitigations=off tsc=reliable mem=${USED / MIB}M`,
  })
  const facts = await lab.ready()
  const { known, marks } = facts
  const guest: Guest = {
    vm: String(lab.pid),
    options: { qmp: lab.qmp },
    sessions: 'one',
    vcpuCount: 2,
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
    // Under single steps a round takes minutes: rip tells that they are taken.
    progress: async () => BigInt(await rounds(lab, marks.counters)) * 2n ** 64n + (await printedRegisters(lab, 0)).rip,
    provoke: {
      ...provocations(facts, { msrs: true }),
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

/** Some of what QEMU itself prints. */
async function printedRegisters(lab: QemuLab, vcpu: number) {
  const text = await monitor(lab.ownQmp, 'human-monitor-command', {
    'command-line': 'info registers',
    'cpu-index': vcpu,
  })
  const word = (name: string) => BigInt(`0x${new RegExp(`${name}=([0-9a-f]+)`).exec(String(text))?.[1]}`)
  return { rip: word('RIP'), rsp: word('RSP'), r15: word('R15'), cr3: word('CR3'), efer: word('EFER') }
}

/** What two processes of the guest count together: from its RAM file, or by QEMU's own word. */
async function rounds(lab: QemuLab, counters: number): Promise<number> {
  if (lab.ramFile === undefined) {
    const words = await monitor(lab.ownQmp, 'human-monitor-command', { 'command-line': `xp /1gx ${counters + ROUNDS}` })
    return Number(/: (0x[0-9a-f]+)/.exec(String(words))?.[1])
  }
  const fd = openSync(lab.ramFile, 'r')
  try {
    const word = Buffer.alloc(8)
    readSync(fd, word, 0, 8, counters + ROUNDS)
    return Number(word.readBigUInt64LE())
  } finally {
    closeSync(fd)
  }
}
