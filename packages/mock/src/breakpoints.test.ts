import { open, type Vm } from '@microvmi/core'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createGuest, type Guest, type MockCapability, mock } from './index.ts'

let guest: Guest
let vm: Vm<MockCapability>

const loop = {
  source:
    'start:\n  mov rbx, DATA\nagain:\n  load64 rax, [rbx]\n  add rax, 1\nstore:\n  store64 [rbx], rax\n  jmp again',
}

beforeEach(async () => {
  const processes = ['one', 'two', 'three', 'four'].map((name) => ({ name, program: loop }))
  guest = createGuest({ name: 'breakpoints', seed: 4, vcpus: 2, processes })
  vm = await open(mock, { vm: 'breakpoints' })
})

afterEach(async () => {
  await vm.close()
  guest.remove()
})

const label = (name: string) => guest.process('one').labels.get(name) ?? 0n
/** The breakpoint's byte as it truly is, and as a session reads it. */
function bytes(process: string, name: string) {
  const physical = guest.translate(guest.process(process), label(name)) ?? 0
  return { truly: guest.read(physical, 1)[0], read: vm.memory.readUint8(physical), physical }
}

test('a software breakpoint is in memory, hidden from reads, and gone again', () => {
  const before = bytes('one', 'again')
  const address = guest.process('one').cr3
  const intercept = vm.intercept({ kind: 'breakpoint', address: label('again'), addressSpace: address }, () => {})
  expect(bytes('one', 'again')).toEqual({ ...before, truly: 0xcc })
  expect(bytes('two', 'again').truly).toBe(before.truly)
  const dump = new Uint8Array(4096)
  vm.memory.read(before.physical - (before.physical % 4096), dump)
  expect(dump[before.physical % 4096]).toBe(before.read)
  expect(() => vm.memory.map(before.physical, 1, () => {})).toThrow(expect.objectContaining({ code: 'BUSY' }))
  intercept.close()
  expect(bytes('one', 'again')).toEqual(before)
})

test('it is met in its address space only, and the process goes on', () => {
  const { cr3 } = guest.process('two')
  const spaces = new Set<bigint>()
  let count = 0
  vm.intercept({ kind: 'breakpoint', address: label('again'), addressSpace: cr3 }, (event) => {
    count += 1
    spaces.add(event.registers?.cr3 ?? 0n)
    expect(event.address).toBe(label('again'))
  })
  guest.runNow(20_000)
  expect(spaces).toEqual(new Set([cr3]))
  // Four instructions a round; the last one may be under way.
  expect(count - Number(guest.process('two').rounds)).toBeGreaterThanOrEqual(0)
  expect(count - Number(guest.process('two').rounds)).toBeLessThanOrEqual(1)
  expect(guest.process('one').rounds).toBeGreaterThan(100n)
})

test('one in the kernel is met in its address space only, too', () => {
  const { cr3 } = guest.process('three')
  const spaces = new Set<bigint>()
  const address = guest.kernel.labels.get('timer') ?? 0n
  vm.intercept({ kind: 'breakpoint', address, addressSpace: cr3 }, (event) => {
    spaces.add(event.registers?.cr3 ?? 0n)
  })
  guest.runNow(20_000)
  expect(spaces).toEqual(new Set([cr3]))
})

test('arming leaves no trace where the guest has not been yet', () => {
  const everything = () => guest.ranges.map(({ start, length }) => Buffer.from(guest.read(start, length)))
  const before = everything()
  const all = { kind: 'breakpoint', address: label('again'), method: 'software' } as const
  vm.intercept([all, { kind: 'breakpoint', address: guest.kernel.labels.get('timer') ?? 0n }], () => {}).close()
  expect(everything().every((range, index) => range.equals(before[index] ?? Buffer.alloc(0)))).toBe(true)
})

test.each(['software', 'hardware'] as const)('a %s one with an injection is met once all the same', (method) => {
  const { cr3 } = guest.process('one')
  let count = 0
  vm.intercept({ kind: 'breakpoint', address: label('again'), addressSpace: cr3, method }, (event) => {
    if (event.stops === 'vcpu') count += 1
    return { inject: { type: 'nmi' } }
  })
  guest.runNow(20_000)
  expect(count).toBeGreaterThan(20)
  expect(Math.abs(count - Number(guest.process('one').rounds))).toBeLessThanOrEqual(1)
})

test('a hardware one is met in all address spaces, and changes no memory', () => {
  const spaces = new Set<bigint>()
  vm.intercept({ kind: 'breakpoint', address: label('again'), method: 'hardware' }, (event) => {
    spaces.add(event.registers?.cr3 ?? 0n)
  })
  expect(bytes('one', 'again').truly).not.toBe(0xcc)
  guest.runNow(20_000)
  expect(spaces.size).toBe(4)
})

test('there are four debug registers, for breakpoints and watchpoints', () => {
  const intercepts = [0n, 1n, 2n].map((by) =>
    vm.intercept({ kind: 'breakpoint', address: 0x1000n + by, method: 'hardware' }, () => {}),
  )
  const watch = vm.intercept({ kind: 'watchpoint', address: 0x60_0000n, length: 8, access: 'w' }, () => {})
  const fifth = () => vm.intercept({ kind: 'breakpoint', address: 0x2000n, method: 'hardware' }, () => {})
  expect(fifth).toThrow(expect.objectContaining({ code: 'BUSY' }))
  watch.close()
  const taken = fifth()
  for (const intercept of [...intercepts, taken]) intercept.close()
  for (const by of [0n, 8n, 16n, 24n]) {
    vm.intercept({ kind: 'watchpoint', address: 0x60_0000n + by, length: 8, access: 'w' }, () => {})
  }
})

test('a physical one is met wherever its byte is executed', () => {
  const { physical } = bytes('three', 'store')
  const spaces = new Set<bigint>()
  vm.intercept({ kind: 'breakpoint', physicalAddress: physical }, (event) => {
    spaces.add(event.registers?.cr3 ?? 0n)
    expect(event.address).toBe(label('store'))
  })
  guest.runNow(20_000)
  expect(spaces).toEqual(new Set([guest.process('three').cr3]))
})

test.each([
  ['software breakpoints where nothing is mapped', { address: 0x1234_5000n, method: 'software' }, 'BAD_ARGUMENT'],
  ['addresses that are not canonical', { address: 0x8000_0000_0000_0000n }, 'BAD_ARGUMENT'],
  ['physical addresses that are no memory', { physicalAddress: 0xb_0000 }, 'BAD_ADDRESS'],
  ['physical ones in debug registers', { physicalAddress: 0x10_0000, method: 'hardware' }, 'UNSUPPORTED'],
] as const)('%s are refused', (_, request, code) => {
  expect(() => vm.intercept({ kind: 'breakpoint', ...request }, () => {})).toThrow(expect.objectContaining({ code }))
})

test('two breakpoints at one address are one event for two listeners, and one byte', () => {
  const before = bytes('one', 'again')
  const { cr3 } = guest.process('one')
  let first = 0
  let second = 0
  const one = vm.intercept({ kind: 'breakpoint', address: label('again'), addressSpace: cr3 }, () => void first++)
  const two = vm.intercept({ kind: 'breakpoint', physicalAddress: before.physical }, () => void second++)
  guest.runNow(5000)
  expect(first).toBeGreaterThan(100)
  expect(second).toBe(first)
  one.close()
  expect(bytes('one', 'again').truly).toBe(0xcc)
  two.close()
  expect(bytes('one', 'again')).toEqual(before)
})

test('it can be answered by reinjecting, by other opcodes, and by other data', () => {
  const { cr3, task } = guest.process('one')
  expect(task).toBeGreaterThan(0)
  const at = (name: string) => ({ kind: 'breakpoint', address: label(name), addressSpace: cr3 }) as const
  // add rax, 1 becomes add rax, 3.
  const three = new Uint8Array([0x38, 0, 3, 0, 0, 0])
  const add = { kind: 'breakpoint', address: label('again') + 4n, addressSpace: cr3 } as const
  const opcodes = vm.intercept(add, () => ({ emulate: { instruction: three } }))
  guest.runNow(10_000)
  opcodes.close()
  const afterOpcodes = guest.process('one').rounds
  expect(afterOpcodes % 3n).toBe(0n)
  expect(afterOpcodes).toBeGreaterThan(300n)

  const data = new Uint8Array(8)
  data[4] = 1
  const read = vm.intercept(at('again'), () => ({ emulate: { data } }))
  guest.runNow(5000)
  read.close()
  guest.runNow(1)
  expect(guest.process('one').rounds).toBeGreaterThanOrEqual(2n ** 32n)

  const before = guest.process('one').breakpoints
  const passed = vm.intercept(at('store'), () => ({ reinject: true }) as const)
  guest.runNow(2000)
  expect(guest.process('one').breakpoints).toBeGreaterThan(before)
  passed.close()
})

test('a breakpoint stays through a reset', () => {
  let count = 0
  vm.intercept({ kind: 'breakpoint', address: guest.kernel.labels.get('start') ?? 0n }, () => void count++)
  guest.runNow(1000)
  guest.reset()
  guest.runNow(1000)
  // Once a vCPU, each time.
  expect(count).toBe(4)
})

test('a vCPU that comes later meets it, too', async () => {
  await vm.close()
  guest.remove()
  guest = createGuest({ name: 'breakpoints', vcpus: 1, spareVcpus: 1 })
  vm = await open(mock, { vm: 'breakpoints' })
  const vcpus: number[] = []
  vm.intercept({ kind: 'breakpoint', address: guest.kernel.labels.get('start') ?? 0n }, (event) => {
    vcpus.push(event.vcpu)
  })
  guest.runNow(1000)
  expect(vm.vcpuCount).toBe(1)
  expect(guest.addVcpu()).toBe(1)
  expect(vm.vcpuCount).toBe(2)
  guest.runNow(10_000)
  expect(vcpus).toEqual([0, 1])
  expect(guest.process('spare/1').rounds).toBeGreaterThan(100n)
  expect(() => guest.addVcpu()).toThrow(expect.objectContaining({ code: 'BUSY' }))
})

test('a watchpoint is reported behind the access', () => {
  const { cr3 } = guest.process('one')
  const seen = { r: new Set<bigint>(), w: new Set<bigint>() }
  vm.intercept({ kind: 'watchpoint', address: 0x60_0000n, length: 4, access: 'rw', addressSpace: cr3 }, (event) => {
    if (event.access !== 'rw') seen[event.access].add(event.registers?.rip ?? 0n)
    expect(event.address).toBe(0x60_0000n)
    expect(event.registers?.cr3).toBe(cr3)
    if (event.access === 'w') expect(event.registers?.rax).toBe(guest.process('one').rounds)
  })
  guest.runNow(10_000)
  expect(seen).toEqual({ r: new Set([label('again') + 4n]), w: new Set([label('store') + 4n]) })
})

test('an access that is made again is reported once', async () => {
  await vm.close()
  guest.remove()
  // The base goes to the second page, then the limit to the first, which is guarded.
  const source =
    'start:\n  mov rbx, DATA\n  add rbx, 4094\nagain:\n  sgdt [rbx]\n  mov rax, DATA\n  load64 rcx, [rax]\n  add rcx, 1\n  store64 [rax], rcx\n  jmp again'
  guest = createGuest({ name: 'breakpoints', vcpus: 1, processes: [{ name: 'one', program: { source } }] })
  vm = await open(mock, { vm: 'breakpoints' })
  let touched = 0
  let guarded = 0
  vm.intercept({ kind: 'watchpoint', address: 0x60_1000n, length: 8, access: 'w' }, () => void touched++)
  vm.intercept(
    { kind: 'memory', address: guest.process('one').data[0] ?? 0, length: 1, access: 'w' },
    () => void guarded++,
  )
  guest.runNow(5000)
  const { rounds } = guest.process('one')
  expect(guarded).toBeGreaterThan(100)
  expect(Math.abs(touched - Number(rounds))).toBeLessThanOrEqual(1)
})

test('a watchpoint of some bytes is not touched by others', () => {
  let count = 0
  vm.intercept({ kind: 'watchpoint', address: 0x60_0008n, length: 8, access: 'rw' }, () => void count++)
  guest.runNow(10_000)
  expect(count).toBe(0)
  expect(() => vm.intercept({ kind: 'watchpoint', address: 0x60_0004n, length: 8, access: 'w' }, () => {})).toThrow(
    expect.objectContaining({ code: 'BAD_ARGUMENT' }),
  )
})
