import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { demand, type EventKind, type InterceptRequest, open, type VmEvent } from '@microvmi/core'
import { monitor, prepared, type QemuLab, type QemuOptions, startQemu } from '@microvmi/lab-qemu'
import { afterAll, describe, expect, type TestContext, test } from 'vitest'
import { kvm } from './index.ts'

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

type Session = Awaited<ReturnType<ReturnType<typeof shared>>>

/** The driver's events, on guests of labs/qemu's: what conformance does not ask of every driver. */
export function eventTests(machine: QemuOptions, { reboots = true } = {}): void {
  describe("one vCPU, and a gdbstub of the user's", () => {
    const guest = shared({ ...machine, gdb: true })

    test('a breakpoint is met once for each time that the guest comes by', async (context) => {
      await using at = await guest(context)
      await met(at)
    })

    test('CR3: the values are those of the page tables in use', async (context) => {
      await using at = await guest(context)
      const { vm } = at
      const events: { event: VmEvent<'cr'>; cr3: bigint | undefined }[] = []
      vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => {
        events.push({ event, cr3: event.registers?.cr3 })
      })
      await until('50 switches', () => events.length >= 50)
      for (const { event, cr3 } of events) {
        expect(event).toMatchObject({ register: 'cr3', complete: false, stops: 'vm' })
        expect(cr3).toBe(event.old)
      }
      const values = events.map(({ event }) => event.new)
      // With all instructions armed, each value is replaced by the next. KVM has registers for the busiest ones.
      const isChain = vm.info.details.accelerator === 'tcg'
      if (isChain) expect(events.slice(1).map(({ event }) => event.old)).toEqual(values.slice(0, -1))
      // ping and pong at least.
      expect(new Set(values).size).toBeGreaterThanOrEqual(2)
    })

    test('an NMI reaches the guest', async (context) => {
      await using at = await guest(context)
      const { lab } = at
      const vm: typeof at.vm = at.vm
      demand(vm, 'inject')
      vm.inject(0, { type: 'nmi' })
      // Linux, arch/x86/kernel/nmi.c, unknown_nmi_error().
      await until('the kernel tells of it', () => lab.console().includes('NMI received for unknown reason'))
      expect(() => vm.inject(0, { type: 'interrupt', vector: 0x80 })).toThrow(failing('UNSUPPORTED'))
    })

    test("the user's own gdbstub is used, unless someone else does", async (context) => {
      await using at = await guest(context)
      const { vm, lab, marks } = at
      let hits = 0
      const breakpoint = vm.intercept({ kind: 'breakpoint', address: marks.landmark }, () => {
        hits += 1
      })
      await until('hits', () => hits > 3)
      breakpoint.close()
      expect(await chardevs(lab)).toContain('gdb')
      const other = connect(lab.gdb ?? '')
      await once(other, 'connect')
      await monitor(lab.ownQmp, 'cont')
      expect(() => vm.intercept({ kind: 'breakpoint', address: marks.landmark }, () => {})).toThrow(failing('BUSY'))
      other.destroy()
      await once(other, 'close')
      // QEMU leaves the VM as its client did; nothing of ours stops it later.
      await monitor(lab.ownQmp, 'cont')
      await setTimeout(100)
      expect(await monitor(lab.ownQmp, 'query-status')).toMatchObject({ running: true })
    })

    test('a guest that is reset is looked at anew', async (context) => {
      if (!reboots) context.skip('booting takes up to a minute in the emulated machine: run on software emulation only')
      await using at = await guest(context)
      const { vm, lab } = at
      let switches = 0
      vm.intercept({ kind: 'cr', register: 'cr3' }, () => {
        switches += 1
      })
      await until('the first switches', () => switches > 0)
      await monitor(lab.ownQmp, 'system_reset')
      await setTimeout(500)
      switches = 0
      await until('switches of the new kernel', () => switches > 20)
    })
  })

  describe('two vCPUs', () => {
    const guest = shared({ ...machine, vcpus: 2 })

    test('a breakpoint is met once for each time that the guest comes by', async (context) => {
      await using at = await guest(context)
      await met(at)
    })

    test('a step after a breakpoint is one instruction of the same vCPU', async (context) => {
      await using at = await guest(context)
      const { vm, marks } = at
      const steps: bigint[] = []
      const hits: number[] = []
      vm.intercept({ kind: 'singlestep', onlyAsked: true }, ({ address, vcpu }) => {
        expect(vcpu).toBe(hits.at(-1))
        steps.push(address)
      })
      vm.intercept({ kind: 'breakpoint', address: marks.landmark }, (event) => {
        hits.push(event.vcpu)
        event.reply({ step: true })
      })
      await until('ten steps', () => steps.length >= 10)
      // The first instruction of landmark() is a nop, of one byte.
      expect(new Set(steps)).toEqual(new Set([marks.landmark + 1n]))
    })

    test("someone else's pause holds while events are armed, and ours within it", async (context) => {
      await using at = await guest(context)
      const { vm, lab, marks, landmarks } = at
      let hits = 0
      vm.intercept({ kind: 'breakpoint', address: marks.landmark }, () => {
        hits += 1
      })
      await until('hits', () => hits > 3)
      while (((await monitor(lab.ownQmp, 'query-status')) as { status: string }).status !== 'paused') {
        await monitor(lab.ownQmp, 'stop')
        await setTimeout(20)
      }
      const stood = landmarks()
      vm.pause().end()
      vm.readRegisters(0)
      await setTimeout(100)
      expect(landmarks()).toBe(stood)
      await monitor(lab.ownQmp, 'cont')
      const before = hits
      await until('hits after it', () => hits > before + 3)
    })

    test('QEMU killed while an event is held', async (context) => {
      await using at = await guest(context)
      const { vm, lab, marks } = at
      const loop = (async () => {
        for await (const event of vm.intercept({ kind: 'breakpoint', address: marks.landmark })) {
          event.hold()
          process.kill(lab.pid, 'SIGKILL')
        }
      })()
      await expect(loop).rejects.toEqual(failing('VM_GONE'))
    })
  })

  test('what cannot be is refused before anything is touched', async (context) => {
    const lab = await prepared(context, () => startQemu({ ...machine, paused: true }))
    const vm = await open(kvm, { vm: lab.qmp })
    const refused = async <K extends EventKind>(request: InterceptRequest<K>) => {
      expect(() => vm.intercept(request as never, () => {})).toThrow(failing('UNSUPPORTED'))
      expect(await chardevs(lab)).not.toContain('gdb')
    }
    await refused({ kind: 'cr', register: 'xcr0' })
    await refused({ kind: 'breakpoint', physicalAddress: 0x1000 })
    // It has not booted.
    await refused({ kind: 'cr', register: 'cr3' })
    await refused({ kind: 'int3' })
    await refused({ kind: 'msr', msr: 0xc000_0082 })
    expect(await monitor(lab.ownQmp, 'query-status')).toMatchObject({ running: false })
    await vm.close()
    await lab.stop()
  })
}

/** Sessions with one guest, one after the other: each test opens its own. The last may end the guest. */
function shared(options: QemuOptions) {
  let lab: QemuLab | undefined
  afterAll(() => lab?.stop())
  return async (context: TestContext) => {
    lab ??= await prepared(context, () => startQemu(options))
    const facts = await lab.ready()
    const vm = await open(kvm, { vm: lab.qmp })
    const landmarks = () => Number(vm.memory.readUint64(facts.marks.counters))
    return { lab, vm, ...facts, landmarks, [Symbol.asyncDispose]: () => vm.close() }
  }
}

/** Counts a breakpoint's events against the guest's own count of how often it came by. */
async function met(at: Session): Promise<void> {
  const { vm, marks, landmarks } = at
  let events = 0
  const lease = vm.pause()
  const breakpoint = vm.intercept({ kind: 'breakpoint', address: marks.landmark }, () => {
    events += 1
  })
  const before = landmarks()
  lease.end()
  await until('30 events', () => events >= 30)
  const second = vm.pause()
  // The guest counts, then comes by: at either end it may stand between the two.
  const after = landmarks()
  second.end()
  const seen = events
  breakpoint.close()
  expect(Math.abs(after - before - seen)).toBeLessThanOrEqual(1)
  await until('the guest goes on', () => landmarks() > after + 10)
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !holds(); await setTimeout(5)) {
    if (performance.now() > end) throw new Error(`not within 20 seconds: ${what}`)
  }
}

async function chardevs(lab: QemuLab): Promise<string[]> {
  const all = (await monitor(lab.ownQmp, 'query-chardev')) as { label: string }[]
  return all.map(({ label }) => label)
}
