import { type InterceptRequest, open, supports } from '@microvmi/core'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { kvmi } from './driver.ts'
import { startPeers } from './peers.testing.ts'

const peers = await startPeers()
afterAll(() => peers.end())
const running: number[] = []
afterEach(async () => {
  for (const peer of running.splice(0)) await peers.stop(peer)
})

const COUNTERS = [0, 1].map((vcpu) => ({ name: `counter${vcpu}`, program: 'counter' }) as const)
let made = 0

/** A guest that only counts, and its VM. */
async function bringUp(generation: 'A' | 'C', denied: { events?: number[]; commands?: number[] } = {}) {
  made += 1
  const [name, socket] = [`guest ${made}`, peers.path(`g${made}`)]
  const guest = {
    name,
    clock: 'real',
    speed: 400_000,
    timeSlice: 300,
    vcpus: 2,
    spareVcpus: 1,
    memory: 4 * 2 ** 20,
    processes: COUNTERS,
  } as const
  const more = { deniedEvents: denied.events ?? [], deniedCommands: denied.commands ?? [] }
  const peer = await peers.start({ generation, socket, guest, uuid: '55'.repeat(16), ...more })
  running.push(peer)
  await peers.run(peer, 1000)
  const vm = await open(kvmi, { vm: name, socket, timeout: 2000 })
  return { peer, vm }
}

async function until(probe: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 4000; !(await probe()); await new Promise((resolve) => setTimeout(resolve, 5))) {
    if (Date.now() > end) throw new Error('it does not happen')
  }
}

async function goesOn(peer: number): Promise<void> {
  for (const vcpu of [0, 1]) {
    const { clock } = await peers.vcpu(peer, vcpu)
    await until(async () => (await peers.vcpu(peer, vcpu)).clock > clock + 1000)
  }
}

describe.each(['A', 'C'] as const)('generation %s', (generation) => {
  test('an exception is injected once', async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'inject')) throw new Error('it injects')
    const taken = async () => {
      const { processes } = await peers.describe(peer)
      return processes.reduce((sum, { breakpoints }) => sum + breakpoints, 0n)
    }
    expect(await taken()).toBe(0n)
    for (let times = 1n; times <= 5n; times++) {
      vm.inject(1, { type: 'exception', vector: 3 })
      await until(async () => (await taken()) >= times)
      expect(await taken()).toBe(times)
    }
    expect(() => vm.inject(0, { type: 'nmi' })).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
    await vm.close()
    await goesOn(peer)
  })

  test('a breakpoint is met each time, and the guest computes as without', async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'events.breakpoint')) throw new Error('it has breakpoints')
    const { processes } = await peers.describe(peer)
    const counter = processes.find(({ name }) => name === 'counter0')
    const address = counter?.labels.start ?? 0n
    const physical = (await peers.translate(peer, 'counter0', address)) ?? 0
    const before = Buffer.from(await peers.read(peer, physical, 16))
    let met = 0
    const rounds = async () => (await peers.process(peer, 'counter0')).rounds
    const breakpoint: InterceptRequest<'breakpoint'> = { kind: 'breakpoint', physicalAddress: physical }
    const first = await rounds()
    const intercept = vm.intercept(breakpoint, () => {
      met += 1
    })
    await until(() => met > 20)
    expect(vm.memory.readUint8(physical)).toBe(before[0])
    // It is aside for the moment in which the guest's own instruction is executed.
    await until(async () => (await peers.read(peer, physical, 1))[0] === 0xcc)
    intercept.close()
    const counted = Number((await rounds()) - first)
    // Each round begins there: the guest counts on by itself before the breakpoint and behind it only.
    expect(counted).toBeGreaterThanOrEqual(met - 1)
    expect(Buffer.from(await peers.read(peer, physical, 16)).equals(before)).toBe(true)
    await vm.close()
    await goesOn(peer)
  })

  test('what the guest writes over a breakpoint is its own, and stays', async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'events.breakpoint')) throw new Error('it has breakpoints')
    const physical = 0x4_0010
    const intercept = vm.intercept({ kind: 'breakpoint', physicalAddress: physical }, () => undefined)
    expect((await peers.read(peer, physical, 1))[0]).toBe(0xcc)
    await peers.write(peer, physical, Uint8Array.of(0x77))
    expect(vm.memory.readUint8(physical)).toBe(0x77)
    intercept.close()
    expect((await peers.read(peer, physical, 1))[0]).toBe(0x77)
    await vm.close()
    await goesOn(peer)
  })

  test('an unhook takes everything out of the guest, and ends the session', async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'events.breakpoint', 'memory.access')) throw new Error('it has breakpoints')
    const { kernel } = await peers.describe(peer)
    const physical = kernel.find(({ name }) => name === 'switch')?.physical ?? 0
    const before = Buffer.from(await peers.read(peer, physical, 1))
    vm.memory.setAccess(0x4_0000, 4096, 'r')
    const intercept = vm.intercept({ kind: 'breakpoint', physicalAddress: physical }, () => undefined)
    const ended = intercept.ended.catch((error: unknown) => error)
    await until(async () => (await peers.read(peer, physical, 1))[0] === 0xcc)
    expect(await peers.unhook(peer)).toBe(true)
    expect(await ended).toMatchObject({ code: 'VM_GONE', message: expect.stringContaining('migration') })
    expect(Buffer.from(await peers.read(peer, physical, 1)).equals(before)).toBe(true)
    expect(() => vm.readRegisters(0)).toThrow(expect.objectContaining({ code: 'VM_GONE' }))
    await vm.close()
    await goesOn(peer)
  })

  test('release alone lets the guest go on as it was', async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'events.breakpoint', 'events.cr', 'events.memory')) throw new Error('it has events')
    const { kernel } = await peers.describe(peer)
    const physical = kernel.find(({ name }) => name === 'switch')?.physical ?? 0
    const before = Buffer.from(await peers.read(peer, physical, 1))
    let held = 0
    vm.intercept(
      [
        { kind: 'breakpoint', physicalAddress: physical },
        { kind: 'cr', register: 'cr3' },
      ],
      (event) => {
        held += 1
        event.hold()
      },
    )
    await until(() => held > 0)
    vm.pause()
    vm.release()
    expect(Buffer.from(await peers.read(peer, physical, 1)).equals(before)).toBe(true)
    await goesOn(peer)
    await vm.close()
    await goesOn(peer)
  })

  test("registers that were written read back at once, and are the guest's behind the pause", async () => {
    const { peer, vm } = await bringUp(generation)
    if (!supports(vm, 'registers.write')) throw new Error('it writes registers')
    let lease = vm.pause()
    // In the kernel, what is saved on its stack would come back over it.
    while (vm.readRegisters(0).rip >= 2n ** 47n) {
      lease.end()
      lease = vm.pause()
    }
    vm.writeRegisters(0, { r11: 0x1234n, r10: 7n })
    vm.writeRegisters(0, { r11: 0x5678n })
    expect(vm.readRegisters(0)).toMatchObject({ r11: 0x5678n, r10: 7n })
    lease.end()
    // A counter does not touch them; each process has its own.
    await until(async () => (await peers.vcpu(peer, 0)).registers.r11 === 0x5678n)
    await vm.close()
    await goesOn(peer)
  })
})

test('what QEMU does not allow is lacked, with the reason', async () => {
  const { vm } = await bringUp('C', { events: [7], commands: [14] })
  expect(supports(vm, 'events.cr')).toBe(false)
  expect(supports(vm, 'memory.write')).toBe(false)
  expect(supports(vm, 'events.breakpoint')).toBe(false)
  expect(supports(vm, 'events.msr')).toBe(true)
  const anyVm = vm as unknown as { intercept(request: object): unknown }
  expect(() => anyVm.intercept({ kind: 'cr', register: 'cr3' })).toThrow(/QEMU does not allow/)
  await vm.close()
})

test('generation A: a vCPU that comes later is watched as the others are', async () => {
  const { peer, vm } = await bringUp('A')
  if (!supports(vm, 'events.cr', 'events.singlestep')) throw new Error('it has events')
  const seen = new Set<number>()
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => {
    seen.add(vcpu)
  })
  expect(vm.vcpuCount).toBe(2)
  await peers.addVcpu(peer)
  await until(() => seen.has(2))
  expect(vm.vcpuCount).toBe(3)
  expect(vm.readRegisters(2).cr3).toBeGreaterThan(0n)
  const lease = vm.pause()
  const moment = () => new Promise((resolve) => setTimeout(resolve, 50))
  // An event that was raised before is answered still, which ends its instruction.
  await moment()
  const { clock } = await peers.vcpu(peer, 2)
  await moment()
  expect((await peers.vcpu(peer, 2)).clock).toBe(clock)
  lease.end()
  intercept.close()
  await vm.close()
  await goesOn(peer)
})
