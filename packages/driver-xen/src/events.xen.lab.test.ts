import { setTimeout } from 'node:timers/promises'
import { MicrovmiError, open } from '@microvmi/core'
import { controlPage, type GuestFacts, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DomainWatch } from './domain-watch.ts'
import { xen } from './index.ts'
import { Monitor } from './monitor.ts'
import { SessionNote } from './session-note.ts'
import { Xen } from './xen.ts'

type Count = keyof typeof controlPage.counts

let guest: XenGuest
let facts: GuestFacts

beforeAll(async () => {
  guest = await startGuest({ type: 'pvh', vcpus: 2 })
  facts = await guest.ready()
})
afterAll(() => guest.destroy())

async function session() {
  const vm = await open(xen, {
    vm: guest.uuid,
    require: ['events.breakpoint', 'events.int3', 'events.msr', 'events.cr', 'reply.reinject', 'reply.value'],
  })
  const count = (vcpu: number, name: Count) => {
    const at = facts.control + controlPage.vcpus + vcpu * controlPage.vcpuLength + controlPage.counts[name]
    return Number(vm.memory.readUint64(at))
  }
  return { vm, count, [Symbol.asyncDispose]: () => vm.close() }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !holds(); await setTimeout(10)) {
    if (performance.now() > end) throw new Error(`not within 20 seconds: ${what}`)
  }
}

test.each([
  ['int3', 'breakpoints'],
  ['msr', 'msrs'],
] as const)('%s: on each vCPU, as many events as the guest counts', async (kind, name) => {
  await using at = await session()
  const { vm, count } = at
  const events = [0, 0]
  const requests = { int3: { kind: 'int3' }, msr: { kind: 'msr', msr: 0xc000_0103, onChange: false } } as const
  const lease = vm.pause()
  const intercept = vm.intercept(requests[kind], ({ vcpu }) => {
    events[vcpu] = (events[vcpu] ?? 0) + 1
  })
  const before = [count(0, name), count(1, name)]
  lease.end()
  await until('fifty events on each', () => events.every((one) => one >= 50))
  const second = vm.pause()
  await setTimeout(100)
  const after = [count(0, name), count(1, name)]
  const seen = [...events]
  second.end()
  intercept.close()
  for (const vcpu of [0, 1]) {
    // The guest counts beside the instruction: at either end it may stand between the two.
    expect(Math.abs((after[vcpu] ?? 0) - (before[vcpu] ?? 0) - (seen[vcpu] ?? 0))).toBeLessThanOrEqual(1)
  }
})

test('a breakpoint of ours is stepped over on both vCPUs, for as long as it is there', async () => {
  await using at = await session()
  const { vm, count } = at
  const physicalAddress = facts.marks[0]?.physical ?? 0
  const events = [0, 0]
  const breakpoint = vm.intercept({ kind: 'breakpoint', physicalAddress }, ({ vcpu }) => {
    events[vcpu] = (events[vcpu] ?? 0) + 1
  })
  await until('fifty events on each', () => events.every((one) => one >= 50))
  breakpoint.close()
  const turns = [count(0, 'turns'), count(1, 'turns')]
  await until('both go on', () => [0, 1].every((vcpu) => count(vcpu, 'turns') > (turns[vcpu] ?? 0) + 10))
})

test('a killed session is answered for, and its monitor taken over', async () => {
  const host = Xen.open()
  const note = new SessionNote(guest.uuid)
  const abandoned = new Monitor(host, guest.domid, note, () => {})
  host.libraries.xc.monitor_software_breakpoint(host.handle, guest.domid, true)
  await setTimeout(500)
  // No process has this number (Linux, PID_MAX_LIMIT is 2^22).
  note.begin('monitor')
  const { writeFileSync } = await import('node:fs')
  writeFileSync(`/run/microvmi-xen/${guest.uuid}`, `${2 ** 22} 1`)
  {
    await using at = await session()
    expect(at.vm.info.warnings).toEqual([expect.stringContaining('killed')])
    const turns = [at.count(0, 'turns'), at.count(1, 'turns')]
    await until('both vCPUs go on', () => [0, 1].every((vcpu) => at.count(vcpu, 'turns') > (turns[vcpu] ?? 0) + 5))
    let events = 0
    const intercept = at.vm.intercept({ kind: 'int3' }, () => {
      events += 1
    })
    await until('events', () => events > 5)
    intercept.close()
  }
  abandoned.keepAlive(false)
  host.close()
})

test("another program's monitor is left alone", async () => {
  const host = Xen.open()
  const { xc } = host.libraries
  expect(Number(xc.monitor_enable(host.handle, guest.domid, new Uint32Array(1)))).not.toBe(0)
  {
    await using at = await session()
    expect(() => at.vm.intercept({ kind: 'int3' }, () => {})).toThrow(expect.objectContaining({ code: 'BUSY' }))
  }
  xc.monitor_disable(host.handle, guest.domid)
  host.close()
})

test('registers are written hundreds of times, and each vCPU goes on', async () => {
  await using at = await session()
  const { vm, count } = at
  for (let round = 0; round < 400; round++) {
    const { dr0 } = vm.readRegisters(0)
    vm.writeRegisters(0, { dr0: dr0 ?? 0n })
    await setTimeout(1 + (round % 5))
  }
  const before = [count(0, 'msrs'), count(1, 'msrs')]
  await until('ten turns of each', () => before.every((turns, vcpu) => count(vcpu, 'msrs') >= turns + 10))
})

test('of CR3 another value can be written than the guest wants', async () => {
  await using at = await session()
  const { vm } = at
  let taken: bigint | undefined
  let wanted: bigint | undefined
  for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
    event.hold()
    const lease = vm.pause()
    wanted = event.old
    event.reply({ value: event.old })
    taken = vm.readRegisters(event.vcpu).cr3
    // What the guest wanted: else it would go on with another process's memory.
    vm.writeRegisters(event.vcpu, { cr3: event.new })
    lease.end()
    break
  }
  expect(taken).toBe(wanted)
})

test('a domain that is destroyed while we listen ends it at once', async () => {
  const { vm } = await session()
  const host = Xen.open()
  let released = 0
  const watch = new DomainWatch(host, () => {
    released += 1
  })
  const loop = (async () => {
    for await (const _ of vm.intercept({ kind: 'int3' }));
  })()
  loop.catch(() => undefined)
  await setTimeout(200)
  const started = performance.now()
  await guest.destroy()
  await expect(loop).rejects.toEqual(expect.objectContaining({ code: 'VM_GONE' }))
  expect(performance.now() - started).toBeLessThan(20_000)
  expect(released).toBeGreaterThan(0)
  expect(() => vm.readRegisters(0)).toThrow(MicrovmiError)
  await vm.close()
  watch.close()
  host.close()
})
