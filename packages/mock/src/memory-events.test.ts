import { open, type Vm } from '@microvmi/core'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createGuest, type Guest, type MockCapability, mock } from './index.ts'

let guest: Guest
let vm: Vm<MockCapability>

const source = `
start:
  mov rbx, DATA
again:
  load64 rax, [rbx]
  add rax, 1
  store64 [rbx], rax
  mov rcx, 7
  store64 [rbx+8], rcx
  jmp again`

beforeEach(async () => {
  guest = createGuest({
    name: 'memory',
    seed: 8,
    vcpus: 1,
    processes: [{ name: 'test', program: { source } }, { name: 'other' }],
  })
  vm = await open(mock, { vm: 'memory' })
})

afterEach(async () => {
  await vm.close()
  guest.remove()
})

const label = (name: string) => guest.process('test').labels.get(name) ?? 0n
const codePage = () => guest.translate(guest.process('test'), 0x40_0000n) ?? 0
const dataPage = () => guest.process('test').data[0] ?? 0
const word = (address: number) => new DataView(guest.read(address, 8).buffer).getBigUint64(0, true)

test('a guarded page tells of each access before it happens', () => {
  const seen: [string, bigint | undefined, number][] = []
  vm.intercept({ kind: 'memory', address: dataPage() + 100, length: 1, access: 'rw' }, (event) => {
    seen.push([event.access, event.virtualAddress, event.address])
    if (event.access === 'w' && event.virtualAddress === 0x60_0000n) {
      expect(word(dataPage())).toBe((event.registers?.rax ?? 0n) - 1n)
    }
  })
  guest.runNow(5000)
  expect(seen.length).toBeGreaterThan(100)
  expect(seen.slice(0, 4)).toEqual([
    ['r', 0x60_0000n, dataPage()],
    ['w', 0x60_0000n, dataPage()],
    ['w', 0x60_0008n, dataPage() + 8],
    ['r', 0x60_0000n, dataPage()],
  ])
})

test('only the access that was asked for', () => {
  const accesses = new Set<string>()
  vm.intercept({ kind: 'memory', address: codePage(), length: 4096, access: 'x' }, (event) => {
    accesses.add(event.access)
  })
  vm.intercept({ kind: 'memory', address: dataPage(), length: 4096, access: 'r' }, (event) => {
    accesses.add(event.access)
  })
  guest.runNow(5000)
  expect(accesses).toEqual(new Set(['x', 'r']))
})

test('denied: the write is not there, the read leaves its register, the instruction is passed over', () => {
  vm.intercept({ kind: 'memory', address: dataPage(), length: 4096, access: 'rw' }, (event) => {
    // The count is neither read nor written; the other word is.
    return event.virtualAddress === 0x60_0000n ? { deny: true } : undefined
  })
  guest.runNow(5000)
  expect(word(dataPage())).toBe(0n)
  expect(word(dataPage() + 8)).toBe(7n)
})

test('denied execution passes instruction after instruction over', () => {
  const addresses: (bigint | undefined)[] = []
  vm.intercept({ kind: 'memory', address: codePage(), length: 4096, access: 'x' }, (event) => {
    addresses.push(event.virtualAddress)
    return { deny: true }
  })
  guest.runNow(2000)
  const from = label('start')
  expect(addresses.slice(0, 5)).toEqual([from, from + 6n, from + 10n, from + 16n, from + 20n])
})

test('emulated with other data, or other opcodes', () => {
  const data = new Uint8Array([0, 0, 0, 0, 9, 0, 0, 0])
  const intercept = vm.intercept({ kind: 'memory', address: dataPage(), length: 4096, access: 'r' }, () => ({
    emulate: { data },
  }))
  guest.runNow(3000)
  expect(word(dataPage())).toBe(9n * 2n ** 32n + 1n)
  intercept.close()
  // mov rcx, 5: in place of each write.
  const instruction = new Uint8Array([0x11, 1, 5, 0, 0, 0])
  vm.memory.writeUint64(dataPage(), 0n)
  vm.memory.writeUint64(dataPage() + 8, 0n)
  vm.intercept({ kind: 'memory', address: dataPage(), length: 4096, access: 'w' }, () => ({ emulate: { instruction } }))
  guest.runNow(3000)
  expect([word(dataPage()), word(dataPage() + 8)]).toEqual([0n, 0n])
})

test('an instruction that reads the page it lies in tells of both', async () => {
  await vm.close()
  guest.remove()
  const own = 'start:\n  mov rbx, start\n  load8 rax, [rbx]\n  jmp start'
  guest = createGuest({ name: 'memory', vcpus: 1, processes: [{ name: 'test', program: { source: own } }] })
  vm = await open(mock, { vm: 'memory' })
  const seen: string[] = []
  vm.intercept({ kind: 'memory', address: codePage(), length: 1, access: 'rwx' }, (event) => {
    seen.push(event.access)
  })
  guest.runNow(500)
  expect(seen.slice(0, 8)).toEqual(['x', 'x', 'r', 'x', 'x', 'x', 'r', 'x'])
})

test('setAccess restricts, getAccess tells, and pages that nobody watches let the guest go on', () => {
  expect(vm.memory.getAccess(dataPage())).toBe('rwx')
  vm.memory.setAccess(dataPage(), 1, 'r')
  expect(vm.memory.getAccess(dataPage() + 4095)).toBe('r')
  guest.runNow(3000)
  expect(guest.process('test').rounds).toBeGreaterThan(100n)

  const seen = new Set<string>()
  const intercept = vm.intercept({ kind: 'memory', address: dataPage(), length: 1, access: 'x' }, (event) => {
    seen.add(event.access)
  })
  guest.runNow(3000)
  expect(seen).toEqual(new Set(['w']))
  vm.memory.setAccess(dataPage(), 1, 'rwx')
  seen.clear()
  guest.runNow(3000)
  expect(seen.size).toBe(0)
  intercept.close()
  expect(() => vm.memory.setAccess(0xb_0000, 1, 'r')).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS' }))
})

test('an injected page fault comes in place of the access, and the access comes again', () => {
  let first = true
  vm.intercept({ kind: 'memory', address: dataPage(), length: 4096, access: 'w' }, (event) => {
    if (!first) return undefined
    first = false
    return { inject: { type: 'exception', vector: 14, errorCode: 6, cr2: event.virtualAddress ?? 0n } }
  })
  guest.runNow(3000)
  expect(guest.process('test').faults).toBe(1n)
  expect(vm.readRegisters(0).cr2).toBe(0x60_0000n)
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
})

test('a view shows another page, to the vCPU alone', () => {
  const shadow = vm.memory.allocate()
  const frame = dataPage() / 4096
  const view = vm.views.create()
  vm.views.remap(view, frame, shadow / 4096)
  guest.runNow(5000)
  const before = word(dataPage())
  vm.views.switch(view)
  guest.runNow(10_000)
  expect(word(dataPage())).toBeLessThanOrEqual(before + 1n)
  expect(word(shadow)).toBeGreaterThan(100n)
  vm.views.remap(view, frame)
  guest.runNow(10_000)
  expect(word(dataPage())).toBeGreaterThan(before + 100n)
  vm.views.switch(0, 0)
  vm.views.destroy(view)
  expect(() => vm.views.switch(view)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  vm.memory.free(shadow)
  expect(() => vm.memory.free(shadow)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
})

test('a hidden breakpoint: int3 in a copy of the page, one step in the own view of the guest', async () => {
  const address = label('again')
  const frame = codePage() / 4096
  const copy = vm.memory.allocate()
  const before = guest.read(codePage(), 4096)
  const page = new Uint8Array(4096)
  vm.memory.read(codePage(), page)
  page[Number(address % 4096n)] = 0xcc
  vm.memory.write(copy, page)
  const view = vm.views.create()
  vm.views.remap(view, frame, copy / 4096)
  vm.views.switch(view)
  const steps: bigint[] = []
  let met = 0
  const hits = vm.intercept({ kind: 'int3' }, (event) => {
    expect(event.address).toBe(address)
    met += 1
    return { step: { view: 0 } }
  })
  const stepped = vm.intercept({ kind: 'singlestep', onlyAsked: true }, (event) => {
    steps.push(event.address)
    expect(guest.vcpu(event.vcpu).view).toBe(view)
  })
  guest.runNow(10_000)
  expect(met).toBeGreaterThan(100)
  expect(new Set(steps)).toEqual(new Set([address + 4n]))
  expect(steps.length).toBe(met)
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
  expect(guest.process('test').breakpoints).toBe(0n)
  expect(guest.read(codePage(), 4096)).toEqual(before)
  hits.close()
  stepped.close()
})

test('a guard of one view is none of another', () => {
  const view = vm.views.create()
  let met = 0
  vm.intercept({ kind: 'memory', address: dataPage(), length: 1, access: 'w', view }, (event) => {
    met += 1
    expect(event.view).toBe(view)
    return { view: 0 }
  })
  guest.runNow(3000)
  expect(met).toBe(0)
  vm.views.switch(view)
  guest.runNow(5000)
  expect(met).toBe(1)
  expect(guest.vcpu(0).view).toBe(0)
})

test('a new view is equal to view 0', () => {
  vm.memory.setAccess(dataPage(), 1, 'r')
  const view = vm.views.create()
  expect(vm.memory.getAccess(dataPage(), view)).toBe('r')
  vm.memory.setAccess(dataPage(), 1, 'rx', view)
  expect(vm.memory.getAccess(dataPage())).toBe('r')
})

test('views: bad arguments', () => {
  const code = (code: string) => expect.objectContaining({ code })
  expect(() => vm.views.destroy(0)).toThrow(code('BAD_ARGUMENT'))
  expect(() => vm.views.remap(0, 1, 2)).toThrow(code('BAD_ARGUMENT'))
  const view = vm.views.create()
  expect(() => vm.views.remap(view, 0xb0)).toThrow(code('BAD_ADDRESS'))
  expect(() => vm.views.remap(view, 1, 0xb0)).toThrow(code('BAD_ADDRESS'))
  expect(() => vm.views.remap(view, 1.5)).toThrow(code('BAD_ARGUMENT'))
  expect(() => {
    for (;;) vm.views.create()
  }).toThrow(code('BUSY'))
})

test('a step that is asked for is one instruction', () => {
  const addresses: bigint[] = []
  let left = 3
  vm.intercept({ kind: 'breakpoint', address: label('again'), addressSpace: guest.process('test').cr3 }, (event) =>
    left === 3 && event.vcpu === 0 ? { step: true } : undefined,
  )
  vm.intercept({ kind: 'singlestep', onlyAsked: true }, (event) => {
    addresses.push(event.address)
    left -= 1
    return left > 0 ? { step: true } : undefined
  })
  guest.runNow(5000)
  const again = label('again')
  expect(addresses).toEqual([again + 4n, again + 10n, again + 14n])
})

test('steps of one vCPU only', () => {
  const count = [0, 0]
  vm.intercept({ kind: 'singlestep', vcpu: 0 }, (event) => {
    count[event.vcpu] = (count[event.vcpu] ?? 0) + 1
  })
  vm.intercept({ kind: 'singlestep', vcpu: 1 }, () => {
    throw new Error('there is no such vCPU')
  })
  guest.runNow(1000)
  expect(count[0]).toBeGreaterThan(900)
})

test('without write protection the kernel writes read-only pages', () => {
  // The kernel's own code is one: what its timer handler begins with becomes a store there.
  const target = guest.kernel.labels.get('idle') ?? 0n
  const physical = guest.translate(guest.kernel, target) ?? 0
  const instruction = new Uint8Array([0x2b, 0x10, 0, 0])
  const storeWith = (cr0: bigint) => {
    let done = false
    const intercept = vm.intercept({ kind: 'breakpoint', address: guest.kernel.labels.get('timer') ?? 0n }, () => {
      if (done) return undefined
      done = true
      return { registers: { rcx: target, rax: 0x9090n, cr0 }, emulate: { instruction } }
    })
    guest.runNow(2000)
    intercept.close()
    expect(done).toBe(true)
  }
  const { cr0 } = vm.readRegisters(0)
  const before = guest.read(physical, 8)
  storeWith(cr0)
  expect(guest.read(physical, 8)).toEqual(before)
  storeWith(cr0 & ~0x1_0000n)
  expect(guest.read(physical, 8)).toEqual(new Uint8Array([0x90, 0x90, 0, 0, 0, 0, 0, 0]))
})
