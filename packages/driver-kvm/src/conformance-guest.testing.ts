import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { type Guest, Skipped } from '@microvmi/conformance'
import {
  type GuestFacts,
  knownPage,
  LabUnavailable,
  monitor,
  type QemuLab,
  type QemuOptions,
  startQemu,
} from '@microvmi/lab-qemu'
import { provocations } from './provocations.testing.ts'

const MIB = 2 ** 20
/** The kernel is told of less memory than there is: the rest is nobody's. */
const UNUSED_MIB = 32
/** Where `rounds` is among the counters that the guest's processes share (struct shared, labs/qemu/guest/init.c). */
const ROUNDS = 24

/** The guest of labs/qemu as conformance wants it, brought up again when a case has ended it. */
export class ConformanceGuest {
  readonly #options: QemuOptions & { readonly memoryMiB: number }
  readonly #msrs: boolean
  #lab: QemuLab | undefined
  #guest: Guest | undefined
  #hasVanished = false

  /** @param msrs whether the driver can show MSR writes of it */
  constructor(options: QemuOptions & { readonly memoryMiB: number }, { msrs }: { readonly msrs: boolean }) {
    this.#options = options
    this.#msrs = msrs
  }

  async current(): Promise<Guest> {
    if (this.#lab && !existsSync(`/proc/${this.#lab.pid}`)) {
      await this.stop()
      this.#hasVanished = true
    }
    this.#guest ??= await this.#bringUp().catch(skipWithout)
    return this.#guest
  }

  async stop(): Promise<void> {
    const lab = this.#lab
    this.#lab = undefined
    this.#guest = undefined
    await lab?.stop()
  }

  async #bringUp(): Promise<Guest> {
    const { memoryMiB } = this.#options
    const mem = `mem=${memoryMiB - UNUSED_MIB}M`
    const lab = await startQemu({
      ...this.#options,
      name: 'conformance',
      vcpus: 2,
      commandLine: `console=ttyS0 quiet nokaslr mitigations=off tsc=reliable panic=-1 ${mem}`,
    })
    this.#lab = lab
    // The cases that end a guest come last, and ask nothing of the programs in it: no need to wait for these again.
    const inside = this.#hasVanished ? {} : this.#known(lab, await lab.ready())
    return {
      vm: String(lab.pid),
      options: { qmp: lab.qmp },
      sessions: 'one',
      vcpuCount: 2,
      ...inside,
      async vanish() {
        process.kill(lab.pid, 'SIGKILL')
        while (existsSync(`/proc/${lab.pid}`)) await setTimeout(10)
      },
    }
  }

  /** What the guest's own programs tell. */
  #known(lab: QemuLab, facts: GuestFacts): Partial<Guest> {
    const { known, marks } = facts
    const end = this.#options.memoryMiB * MIB
    return {
      memory: {
        known: known.physical.map((address, index) => ({ address, bytes: knownPage(index) })),
        end,
        hole: { start: end, length: 16 * MIB },
        scratch: { address: end - (UNUSED_MIB / 2) * MIB, length: MIB },
      },
      registers: {
        absent: ['tsc'],
        known: (vcpu) => printedRegisters(lab, vcpu),
        writable: { cr2: 0x1234_5000n, cr8: 2n, kernelGsBase: 0xffff_8880_0000_1000n },
      },
      // Under single steps a round takes minutes: rip tells that they are taken.
      progress: async () =>
        BigInt(await rounds(lab, marks.counters)) * 2n ** 64n + (await printedRegisters(lab, 0)).rip,
      provoke: {
        ...provocations(facts, { msrs: this.#msrs }),
        lifecycle: {
          request: { kind: 'lifecycle' },
          async provoke() {
            await monitor(lab.ownQmp, 'stop')
            await monitor(lab.ownQmp, 'cont')
          },
        },
      },
    }
  }
}

/** Where the lab cannot come up, every case is skipped with that reason, or fails with it when labs are required. */
function skipWithout(error: unknown): never {
  if (error instanceof LabUnavailable && process.env.MICROVMI_LABS !== 'required') throw new Skipped(error.message)
  throw error
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
