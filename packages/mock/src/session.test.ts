import { createHash } from 'node:crypto'
import { MicrovmiError, open, type Vm } from '@microvmi/core'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createGuest, type Guest, type MockCapability, mock } from './index.ts'

let guest: Guest
let vm: Vm<MockCapability>

beforeEach(async () => {
  guest = createGuest({ name: 'session', seed: 3 })
  vm = await open(mock, { vm: 'session' })
})

afterEach(async () => {
  await vm.close()
  guest.remove()
})

const withCode = (code: string) => expect.objectContaining({ code })

/** All of the guest's memory, as it truly is, range by range. */
function everything(): string[] {
  return guest.ranges.map(({ start, length }) => digest(guest.read(start, length)))
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

test('release leaves the guest as it was found', async () => {
  guest.runNow(10_000)
  const before = everything()
  const view = vm.views.create()
  vm.views.switch(view)
  vm.memory.setAccess(0x20_0000, 4096, 'none')
  vm.memory.allocate()
  vm.pause()
  vm.intercept({ kind: 'breakpoint', address: guest.kernel.labels.get('switch') ?? 0n }, () => {})
  vm.intercept({ kind: 'memory', address: 0, length: 0x10_0000, access: 'rwx' }, () => {})
  vm.release()
  expect(everything()).toEqual(before)
  expect(guest.vcpu(0).view).toBe(0)
  guest.runNow(1000)
  expect(guest.vcpu(0).clock).toBe(11_000)
  await vm.close()
  vm = await open(mock, { vm: 'session' })
  expect(vm.memory.getAccess(0x20_0000)).toBe('rwx')
  expect(vm.views.create()).toBe(view)
})

test('a pause holds every vCPU, and counts', () => {
  guest.runNow(1000)
  const one = vm.pause()
  const two = vm.pause()
  expect(guest.runNow(1000)).toBe(0)
  one.end()
  expect(vm.runState()).toBe('paused')
  expect(guest.runNow(1000)).toBe(0)
  two.end()
  expect(vm.runState()).toBe('running')
  expect(guest.runNow(1000)).toBeGreaterThan(1000)
})

test('a pause for longer than the session outlives it; that of another is not undone', async () => {
  vm.setRunState('paused')
  const lease = vm.pause()
  lease.end()
  expect(vm.runState()).toBe('paused')
  await vm.close()
  expect(guest.runNow(1000)).toBe(0)
  vm = await open(mock, { vm: 'session' })
  vm.setRunState('running')
  expect(guest.runNow(1000)).toBeGreaterThan(0)
})

test('registers: all that are written read back', () => {
  guest.runNow(5000)
  const before = vm.readRegisters(1)
  for (const name of vm.writableRegisters) {
    const old = before[name]
    if (typeof old === 'bigint') {
      const value =
        name === 'rflags' ? old ^ 1n : name === 'rip' ? 0xffff_8000_1234_5678n : (old ^ 0x5000n) & 0xffff_ffffn
      vm.writeRegisters(1, { [name]: value })
      expect(vm.readRegisters(1)[name]).toBe(value)
      vm.writeRegisters(1, { [name]: old })
    } else {
      vm.writeRegisters(1, { [name]: { ...old, base: 0x1234n, limit: 77 } })
      expect(vm.readRegisters(1)[name]).toEqual({ ...old, base: 0x1234n, limit: 77 })
      vm.writeRegisters(1, { [name]: old })
    }
  }
  expect(vm.readRegisters(1)).toEqual(before)
  guest.runNow(5000)
  expect(guest.process('walker').faults).toBe(0n)
})

test.each([
  ['rip', 0x8000_0000_0000_0000n],
  ['rflags', 2n ** 22n],
  ['cr3', 2n ** 52n],
] as const)('%s refuses what it cannot hold', (name, value) => {
  const before = vm.readRegisters(0)
  expect(() => vm.writeRegisters(0, { rax: 1n, [name]: value })).toThrow(withCode('BAD_ARGUMENT'))
  expect(vm.readRegisters(0)).toEqual(before)
})

test('model-specific registers', () => {
  guest.runNow(5000)
  expect(vm.readMsr(0, 0xc000_0082)).toBe(guest.kernel.labels.get('system_call'))
  vm.writeMsr(0, 0xc000_0102, 5n)
  expect(vm.readRegisters(0).kernelGsBase).toBe(5n)
  vm.writeMsr(0, 0x10, 1_000_000n)
  expect(vm.readRegisters(0).tsc).toBe(1_000_000n)
  guest.runNow(50)
  expect(vm.readMsr(0, 0x10)).toBe(1_000_050n)
  expect(() => vm.readMsr(0, 0xdead)).toThrow(withCode('UNSUPPORTED'))
  expect(() => vm.writeMsr(0, 0xdead, 0n)).toThrow(withCode('UNSUPPORTED'))
})

test('pieces are all of memory, zeroes left out', async () => {
  guest.runNow(10_000)
  const truth = everything()
  const got = guest.ranges.map(({ length }) => new Uint8Array(length))
  let skipped = 0
  for await (const { address, length, bytes } of vm.memory.pieces({ pieceLength: 0x4000 })) {
    const index = guest.ranges.findIndex((range) => address >= range.start && address < range.start + range.length)
    if (bytes) got[index]?.set(bytes, address - (guest.ranges[index]?.start ?? 0))
    else skipped += length
  }
  expect(got.map(digest)).toEqual(truth)
  expect(skipped).toBeGreaterThan(8 * 2 ** 20)
})

test('pieces within any two addresses are what reads give', async () => {
  guest.runNow(5000)
  const [page = 0] = guest.process('walker').data.slice(1)
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: -5000, max: 5000 }), fc.nat(10_000), async (by, length) => {
      const within = { start: page + by, length }
      const bytes = new Uint8Array(length)
      let at = within.start
      for await (const piece of vm.memory.pieces({ within, pieceLength: 4096 })) {
        expect(piece.address).toBe(at)
        if (piece.bytes) bytes.set(piece.bytes, at - within.start)
        at += piece.length
      }
      expect(at).toBe(within.start + length)
      expect(digest(bytes)).toBe(digest(guest.read(within.start, length)))
    }),
  )
})

test('the guest sees what a session writes, page tables included', async () => {
  const source = 'start:\n  mov rbx, DATA\n  load64 rax, [rbx+8]\n  store64 [rbx+16], rax\n  jmp start'
  await vm.close()
  guest.remove()
  guest = createGuest({ name: 'session', processes: [{ name: 'copy', program: { source } }] })
  vm = await open(mock, { vm: 'session' })
  guest.runNow(5000)
  const { data, cr3 } = guest.process('copy')
  const [page = 0] = data
  vm.memory.writeUint64(page + 8, 0x1234_5678_9abc_def0n)
  guest.runNow(5000)
  expect(vm.memory.readUint64(page + 16)).toBe(0x1234_5678_9abc_def0n)
  // Nothing is mapped any more in the lower half: the process faults again and again.
  vm.memory.writeUint64(Number(cr3), 0n)
  guest.runNow(5000)
  expect(guest.process('copy').faults).toBeGreaterThan(0n)
})

test('what a session writes into page tables holds at once', async () => {
  await vm.close()
  guest.remove()
  guest = createGuest({ name: 'session', vcpus: 1, timeSlice: 1_000_000, processes: [{ name: 'one' }] })
  vm = await open(mock, { vm: 'session' })
  guest.runNow(5000)
  vm.memory.writeUint64(Number(guest.process('one').cr3), 0n)
  guest.runNow(100)
  expect(guest.process('one').faults).toBeGreaterThan(0n)
})

test('a guest whose exception handlers are gone crashes, and says so', async () => {
  guest.runNow(5000)
  const changes: string[] = []
  vm.intercept({ kind: 'lifecycle' }, (event) => void changes.push(event.change))
  vm.writeRegisters(0, { idt: { base: 0n, limit: 0 } })
  await guest.run(10_000)
  expect(changes).toEqual(['crashed'])
  expect(vm.runState()).toBe('paused')
  expect(vm.readRegisters(0).idt).toEqual({ base: 0n, limit: 0 })
  guest.reset()
  await guest.run(10_000)
  expect(changes).toEqual(['crashed', 'reset'])
  expect(vm.readRegisters(0).idt?.limit).toBe(4095)
})

test('lifecycle: pauses of anybody, reset, shutdown', async () => {
  const changes: string[] = []
  vm.intercept({ kind: 'lifecycle' }, (event) => {
    expect(event.stops).toBe('none')
    changes.push(event.change)
  })
  guest.pause()
  guest.resume()
  vm.pause().end()
  guest.reset()
  guest.announce('migrating')
  guest.shutDown()
  expect(changes).toEqual([])
  await guest.run(0)
  expect(changes).toEqual(['paused', 'resumed', 'paused', 'resumed', 'reset', 'migrating', 'shutdown'])
  expect(guest.runNow(1000)).toBe(0)
})

test('events go to one session at a time; the rest can be shared', async () => {
  const other = await open(mock, { vm: 'session' })
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})
  expect(() => other.intercept({ kind: 'cpuid' }, () => {})).toThrow(withCode('BUSY'))
  const lease = other.pause()
  const own = vm.pause()
  own.end()
  expect(vm.runState()).toBe('paused')
  lease.end()
  intercept.close()
  other.intercept({ kind: 'cpuid' }, () => {})
  await other.close()
})

test('calls fail as they are told to', () => {
  guest.fail(new MicrovmiError('TIMEOUT', 'too slow'), 2)
  expect(() => vm.memory.readUint8(0)).toThrow(withCode('TIMEOUT'))
  expect(() => vm.readRegisters(0)).toThrow(withCode('TIMEOUT'))
  expect(vm.memory.readUint8(0)).toBe(0)
})

test('a VM that vanishes ends loops, handlers and calls with VM_GONE', async () => {
  const loop = (async () => {
    for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) event.reply()
  })()
  const handled = vm.intercept({ kind: 'cpuid' }, () => {})
  await guest.run(5000)
  guest.vanish('the power went out')
  expect(() => vm.memory.readUint8(0)).toThrow(withCode('VM_GONE'))
  await expect(loop).rejects.toThrow(withCode('VM_GONE'))
  await expect(handled.ended).rejects.toThrow('session has gone: the power went out')
  expect(() => vm.readRegisters(0)).toThrow(withCode('VM_GONE'))
  await expect(open(mock, { vm: 'session' })).rejects.toThrow(withCode('VM_GONE'))
  await vm.close()
})

test('a held event holds its vCPU, and the others run on', async () => {
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' })
  const events = intercept[Symbol.asyncIterator]()
  const first = events.next()
  guest.runNow(10_000)
  const { value } = await first
  if (!value) throw new Error('no event')
  value.hold()
  const other = value.vcpu === 0 ? 1 : 0
  expect(guest.held.map(({ vcpu }) => vcpu)).toContain(value.vcpu)
  const clock = guest.vcpu(value.vcpu).clock
  const second = await events.next()
  if (!second.value) throw new Error('no event')
  expect(second.value.vcpu).toBe(other)
  second.value.reply()
  guest.runNow(1)
  expect(guest.vcpu(value.vcpu).clock).toBe(clock)
  value.reply()
  intercept.close()
  guest.runNow(1000)
  expect(guest.vcpu(value.vcpu).clock).toBeGreaterThan(clock)
})

test('events may stop the whole VM', async () => {
  const whole = createGuest({ name: 'whole', stops: 'vm' })
  const all = await open(mock, { vm: 'whole' })
  const events = all.intercept({ kind: 'cr', register: 'cr3' })[Symbol.asyncIterator]()
  const next = events.next()
  whole.runNow(20_000)
  const { value } = await next
  expect(value?.stops).toBe('vm')
  const clocks = () => [whole.vcpu(0).clock, whole.vcpu(1).clock]
  const before = clocks()
  expect(whole.runNow(1000)).toBe(0)
  expect(clocks()).toEqual(before)
  value?.reply()
  expect(whole.runNow(10)).toBeGreaterThan(0)
  await all.close()
  whole.remove()
})

test('an intercept that ends lets its vCPU go on', async () => {
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' })
  const events = intercept[Symbol.asyncIterator]()
  events.next()
  guest.runNow(10_000)
  expect(guest.held.length).toBe(2)
  intercept.close()
  expect(guest.held).toEqual([])
  guest.runNow(1000)
})
