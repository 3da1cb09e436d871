import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { demand, type EventKind, type InterceptRequest, open } from '@microvmi/core'
import { monitor, prepared, type QemuLab, type QemuOptions, startQemu } from '@microvmi/lab-qemu'
import { expect, type TestContext, test } from 'vitest'
import { kvm } from './index.ts'

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

async function guest(context: TestContext, options: QemuOptions = {}) {
  const lab = await prepared(context, () => startQemu({ memoryMiB: 256, ...options }))
  const facts = await lab.ready()
  const vm = await open(kvm, { vm: lab.qmp })
  const landmarks = () => Number(vm.memory.readUint64(facts.marks.counters))
  return {
    lab,
    vm,
    ...facts,
    landmarks,
    [Symbol.asyncDispose]: async () => {
      await vm.close()
      await lab.stop()
    },
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !holds(); await setTimeout(5)) {
    if (performance.now() > end) throw new Error(`not within 20 seconds: ${what}`)
  }
}

test.for([1, 2])('%i vCPU: a breakpoint is met once for each time that the guest comes by', async (vcpus, context) => {
  await using at = await guest(context, { vcpus })
  const { vm, marks, landmarks } = at
  let events = 0
  const lease = vm.pause()
  const breakpoint = vm.intercept({ kind: 'breakpoint', address: marks.landmark }, () => {
    events += 1
  })
  const before = landmarks()
  lease.end()
  await until('100 events', () => events >= 100)
  const second = vm.pause()
  // What is on its way when the VM is paused was counted by the guest before.
  const after = landmarks()
  second.end()
  const seen = events
  breakpoint.close()
  expect(after - before - seen).toBeGreaterThanOrEqual(0)
  expect(after - before - seen).toBeLessThanOrEqual(1)
  await until('the guest goes on', () => landmarks() > after + 10)
})

test('a step after a breakpoint is one instruction of the same vCPU', async (context) => {
  await using at = await guest(context, { vcpus: 2 })
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

test('CR3: the values are those of the page tables in use', async (context) => {
  await using at = await guest(context)
  const { vm } = at
  const loaded: bigint[] = []
  vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => {
    expect(event).toMatchObject({ register: 'cr3', complete: false, stops: 'vm' })
    expect(event.registers?.cr3).toBe(event.old)
    if (loaded.length > 0) expect(event.old).toBe(loaded.at(-1))
    loaded.push(event.new)
  })
  await until('50 switches', () => loaded.length >= 50)
  // ping and pong at least.
  expect(new Set(loaded).size).toBeGreaterThanOrEqual(2)
})

test('a guest that is reset is looked at anew', async (context) => {
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

test('what cannot be is refused before anything is touched', async (context) => {
  const lab = await prepared(context, () => startQemu({ paused: true }))
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
  await using at = await guest(context, { gdb: true })
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

async function chardevs(lab: QemuLab): Promise<string[]> {
  const all = (await monitor(lab.ownQmp, 'query-chardev')) as { label: string }[]
  return all.map(({ label }) => label)
}
