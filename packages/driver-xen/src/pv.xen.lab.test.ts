import { setTimeout } from 'node:timers/promises'
import { list, open, type Vm } from '@microvmi/core'
import { knownPage } from '@microvmi/lab-qemu'
import { controlPage, type GuestFacts, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { AddressSpace } from '@microvmi/paging'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { xen } from './index.ts'
import { DIRECT_MAP, machineAddresses } from './machine-addresses.testing.ts'
import { Xen } from './xen.ts'

const VCPUS = 2
const PAGE = 4096

let guest: XenGuest
/** By its own addresses, and by the machine's. */
let told: GuestFacts
let facts: GuestFacts

const opened = () => open(xen, { vm: guest.uuid })

beforeAll(async () => {
  guest = await startGuest({ type: 'pv', vcpus: VCPUS })
  told = await guest.ready()
  await using vm = await opened()
  facts = machineAddresses(vm, told)
})
afterAll(() => guest.destroy())

const turns = (vm: Vm<'memory.read'>, vcpu: number) =>
  vm.memory.readUint64(facts.control + controlPage.vcpus + vcpu * controlPage.vcpuLength + controlPage.counts.turns)

test('a PV domain is listed without a hindrance, and opened as what it is', async () => {
  const { vms } = await list({ driver: xen, timeout: 20_000 })
  expect(vms).toEqual([expect.objectContaining({ name: guest.name, id: guest.uuid, state: 'running' })])
  expect(vms[0]?.hindrance).toBeUndefined()
  await using vm = await open(xen, { vm: guest.name })
  expect(vm.info.details).toMatchObject({ domid: guest.domid, type: 'PV' })
  expect(vm.vcpuCount).toBe(VCPUS)
})

test('the layout has as many pages as Xen says that the domain has', async () => {
  await using vm = await opened()
  const host = Xen.open()
  const pages = host.domain(guest.domid)?.pages ?? 0
  host.close()
  const began = performance.now()
  const { ranges } = vm.memory.regions()
  const asked = performance.now() - began
  expect(pages).toBeGreaterThan(20_000)
  expect(ranges.reduce((sum, { length }) => sum + length, 0)).toBe(pages * PAGE)
  let bytes = 0
  let pieces = 0
  const start = performance.now()
  for await (const { length } of vm.memory.pieces()) {
    bytes += length
    pieces += 1
  }
  const took = performance.now() - start
  console.log(
    `${pages} pages in ${ranges.length} ranges, asked in ${asked.toFixed(0)} ms; ${pieces} pieces, ${took.toFixed(0)} ms`,
  )
  expect(bytes).toBe(pages * PAGE)
})

test('registers of each vCPU, in kernel and user mode', async () => {
  await using vm = await opened()
  const flags = facts.control + controlPage.flags
  vm.memory.writeUint64(flags, BigInt(controlPage.flagSwitch))
  // What is in the kernel and in user mode, and where: dom0 shares the processor, and sees a vCPU where it was left.
  const seen = { kernel: new Set<bigint>(), user: new Set<bigint>() }
  const end = performance.now() + 20_000
  for (let reads = 0; performance.now() < end && (reads < 100 || seen.kernel.size < 2 || seen.user.size < 2); reads++) {
    for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
      const { rip, cr0, cr3, cr4, rflags, cs, gs, kernelGsBase = 0n } = vm.readRegisters(vcpu)
      const isInKernel = rip >= 2n ** 63n
      seen[isInKernel ? 'kernel' : 'user'].add(rip)
      expect(cr3).not.toBe(0n)
      expect(cr3 & 0xfffn).toBe(0n)
      expect(vm.memory.tryRead(Number(cr3), new Uint8Array(PAGE))).toBe(true)
      expect(cr0 >> 31n).toBe(1n)
      expect(cr4 & (1n << 5n)).not.toBe(0n)
      expect(rflags & 2n).toBe(2n)
      // A PV guest's kernel runs in ring 3.
      expect((cs?.selector ?? 0) & 3).toBe(3)
      // Linux has its own data of each vCPU there.
      const kernelBase = isInKernel ? gs?.base : kernelGsBase
      if (kernelBase !== 0n) expect(kernelBase).toBeGreaterThan(2n ** 63n)
    }
    await setTimeout(5)
  }
  console.log(`rip: ${seen.kernel.size} places in the kernel, ${seen.user.size} in user mode`)
  expect(seen.kernel.size).toBeGreaterThan(1)
  expect(seen.user.size).toBeGreaterThan(1)
  vm.memory.writeUint64(flags, 0n)
  const lease = vm.pause()
  const { fs, gs, kernelGsBase } = vm.readRegisters(0)
  expect([0xc000_0100, 0xc000_0101, 0xc000_0102].map((index) => vm.readMsr(0, index))).toEqual([
    ...[fs?.base, gs?.base, kernelGsBase],
  ])
  expect(() => vm.readMsr(0, 0xc000_0082)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  lease.end()
})

test('virtual memory, by the tables of the guest', async () => {
  await using vm = await opened()
  const space = AddressSpace.of(vm, 0)
  const { symbols, offsets } = facts
  const comm = (symbols.init_task ?? 0n) + BigInt(offsets['task_struct.comm'] ?? 0)
  expect(space.readString(comm, 16)).toBe('swapper/0')
  expect(space.translate(symbols._text ?? 0n)).toMatchObject({ writable: false, executable: true })
  const page = new Uint8Array(PAGE)
  for (const [index, address] of facts.known.physical.entries()) {
    vm.memory.read(address, page)
    expect(Buffer.compare(page, knownPage(index))).toBe(0)
  }
  const banner = Buffer.alloc(14)
  space.read(DIRECT_MAP + BigInt(told.known.physical[3] ?? 0), banner)
  expect(banner.toString()).toBe('microvmi-known')
})

test('what is written is there, and is put back', async () => {
  await using vm = await opened()
  const [scratch = 0] = facts.scratch
  const before = new Uint8Array(100)
  vm.memory.read(scratch, before)
  const bytes = Uint8Array.from({ length: 100 }, (_, index) => index + 1)
  vm.memory.write(scratch, bytes)
  expect(vm.runState()).toBe('running')
  const seen = new Uint8Array(100)
  vm.memory.read(scratch, seen)
  expect(seen).toEqual(bytes)
  vm.memory.map(scratch, 100, (window) => {
    expect(window).toEqual(bytes)
    window.set(before)
  })
  vm.memory.read(scratch, seen)
  expect(seen).toEqual(before)
  expect(vm.runState()).toBe('running')
  // The guest sees it: its processes hand bytes to each other while the flag is set.
  const rounds = () => vm.memory.readUint64(facts.control + controlPage.rounds)
  const still = rounds()
  vm.memory.writeUint64(facts.control + controlPage.flags, BigInt(controlPage.flagSwitch))
  await expect.poll(rounds, { timeout: 20_000 }).toBeGreaterThan(still + 100n)
  vm.memory.writeUint64(facts.control + controlPage.flags, 0n)
})

test('a page table is read, and not written', async () => {
  await using vm = await opened()
  const { cr3 } = vm.readRegisters(0)
  const before = vm.memory.readUint64(Number(cr3))
  const refused = expect.objectContaining({
    code: 'UNSUPPORTED',
    message: expect.stringContaining('page or descriptor'),
  })
  expect(() => vm.memory.writeUint64(Number(cr3), 0n)).toThrow(refused)
  expect(() => vm.memory.map(Number(cr3), 8, () => {})).toThrow(refused)
  expect(vm.memory.readUint64(Number(cr3))).toBe(before)
  expect(vm.runState()).toBe('running')
})

test('a pause stops it, and its end lets it go on', async () => {
  await using vm = await opened()
  const runs = async (vcpu: number) => {
    const before = turns(vm, vcpu)
    await expect.poll(() => turns(vm, vcpu), { timeout: 20_000 }).toBeGreaterThan(before)
  }
  const lease = vm.pause()
  expect(vm.runState()).toBe('paused')
  const still = [turns(vm, 0), turns(vm, 1)]
  const { rip } = vm.readRegisters(0)
  await setTimeout(1000)
  expect([turns(vm, 0), turns(vm, 1)]).toEqual(still)
  expect(vm.readRegisters(0).rip).toBe(rip)
  lease.end()
  await runs(0)
  await runs(1)
})

test('a general register is written, alone, and the guest goes on', async () => {
  await using vm = await opened()
  const lease = vm.pause()
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
    const before = vm.readRegisters(vcpu)
    vm.writeRegisters(vcpu, { r11: before.r11 ^ 1n })
    expect(vm.readRegisters(vcpu)).toEqual({ ...before, r11: before.r11 ^ 1n })
    vm.writeRegisters(vcpu, { r11: before.r11 })
    expect(vm.readRegisters(vcpu)).toEqual(before)
  }
  expect(() => vm.writeRegisters(0, { cr3: 0n } as object)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  lease.end()
  const before = turns(vm, 0)
  await expect.poll(() => turns(vm, 0), { timeout: 20_000 }).toBeGreaterThan(before)
})

test("Xen's and dom0's frames are BAD_ADDRESS", async () => {
  await using vm = await opened()
  const { ranges } = vm.memory.regions()
  const isOurs = (address: number) => ranges.some(({ start, length }) => start <= address && address < start + length)
  const wrong = expect.objectContaining({ code: 'BAD_ADDRESS' })
  let foreign = 0
  for (let address = 0; address < 3 * 2 ** 30; address += 2 ** 26) {
    if (isOurs(address)) continue
    foreign += 1
    expect(() => vm.memory.readUint8(address)).toThrow(wrong)
    expect(() => vm.memory.writeUint8(address, 0)).toThrow(wrong)
    expect(() => vm.memory.map(address, 8, () => {})).toThrow(wrong)
  }
  expect(foreign).toBeGreaterThan(20)
  expect(vm.runState()).toBe('running')
})

test('what is for HVM and PVH domains alone says so', async () => {
  await using vm = await opened()
  const all = vm as unknown as Vm<'events.cr' | 'memory.alloc'>
  const refused = expect.objectContaining({
    code: 'UNSUPPORTED',
    message: expect.stringContaining('HVM and PVH domains'),
  })
  expect(() => all.intercept({ kind: 'cr', register: 'cr3' })).toThrow(refused)
  expect(() => all.memory.allocate()).toThrow(refused)
  await expect(open(xen, { vm: guest.uuid, require: ['views'] })).rejects.toEqual(refused)
})

test('the guest has come through all of it', async () => {
  const before = guest.tick()?.second ?? 0
  await expect.poll(() => guest.tick()?.second ?? 0, { timeout: 20_000 }).toBeGreaterThan(before + 1)
  expect(guest.console()).not.toMatch(/@ended|BUG|Oops|panic/)
})
