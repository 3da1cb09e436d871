import { type MicrovmiError, open, type Vm } from '@microvmi/core'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createGuest, type Guest, type MockCapability, mock } from './index.ts'

let guest: Guest
let vm: Vm<MockCapability>

/** One process whose program loops; another that changes places with it. */
async function start(source: string, vcpus = 1) {
  guest = createGuest({
    name: 'replies',
    seed: 2,
    vcpus,
    processes: [{ name: 'test', program: { source } }, { name: 'other' }],
  })
  vm = await open(mock, { vm: 'replies' })
}

beforeEach(() => start('start:\n  mov rbx, DATA\n  load64 rax, [rbx]\n  add rax, 1\n  store64 [rbx], rax\n  jmp start'))

afterEach(async () => {
  await vm.close()
  guest.remove()
})

async function restart(source: string, vcpus = 1) {
  await vm.close()
  guest.remove()
  await start(source, vcpus)
}

/** The word at the start of a process's data, of which `DATA` is the address. */
function data(word = 0): bigint {
  const [page = 0] = guest.process('test').data
  return new DataView(guest.read(page + word * 8, 8).buffer).getBigUint64(0, true)
}

const kernelLabel = (name: string) => guest.kernel.labels.get(name) ?? 0n
const label = (name: string) => guest.process('test').labels.get(name) ?? 0n
const space = () => ({ addressSpace: guest.process('test').cr3 })

test('cr: a write that is denied does not happen, one with a value has that', () => {
  const { cr3 } = guest.process('test')
  const seen: bigint[] = []
  vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => {
    seen.push(event.new)
    return event.new === cr3 ? { value: guest.process('other').cr3 } : undefined
  })
  guest.runNow(20_000)
  expect(seen).toContain(cr3)
  expect(guest.process('test').rounds).toBe(0n)
  expect(guest.process('other').rounds).toBeGreaterThan(100n)
})

test('cr: denied', () => {
  const { cr3 } = vm.readRegisters(0)
  let denied = 0
  vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => {
    if (event.new !== event.old) denied += 1
    return { deny: true }
  })
  guest.runNow(20_000)
  expect(denied).toBeGreaterThan(5)
  expect(vm.readRegisters(0).cr3).toBe(cr3)
})

test('cr: filters', async () => {
  await restart('start:\n  mov rax, 7\n  syscall\n  jmp start')
  const count = { all: 0, wp: 0, ts: 0, unchanged: 0, changed: 0 }
  vm.intercept({ kind: 'cr', register: 'cr0' }, () => void count.all++)
  vm.intercept({ kind: 'cr', register: 'cr0', mask: 0x1_0000n }, () => void count.wp++)
  vm.intercept({ kind: 'cr', register: 'cr0', mask: 0x8n }, () => void count.ts++)
  guest.runNow(20_000)
  expect(count.all).toBeGreaterThan(10)
  expect(count).toMatchObject({ wp: 0, ts: count.all })
})

test('asynchronous events do not hold the vCPU', async () => {
  const events = vm.intercept({ kind: 'cr', register: 'cr3', asynchronous: true })
  const seen: bigint[] = []
  const loop = (async () => {
    for await (const event of events) {
      expect(event.stops).toBe('none')
      seen.push(event.new)
    }
  })()
  const before = guest.count('cr')
  expect(guest.runNow(20_000)).toBe(20_000)
  await guest.run(0)
  events.close()
  await loop
  expect(seen.length).toBeGreaterThan(10)
  expect(seen.length).toBe(guest.count('cr') - before)
})

test('msr: value and deny', async () => {
  await restart('start:\n  mov rdi, 5\n  mov rax, 2\n  syscall\n  mov rdi, 6\n  mov rax, 2\n  syscall\n  jmp start')
  const values = new Set<bigint>()
  vm.intercept({ kind: 'msr', msr: 0xc000_0102 }, (event) => {
    values.add(vm.readMsr(0, 0xc000_0102))
    if (event.new === 5n) return { value: 0x1234_5678_9abcn }
    return { deny: true }
  })
  guest.runNow(5000)
  expect(values).toEqual(new Set([0n, 0x1234_5678_9abcn]))
  expect(vm.readRegisters(0).kernelGsBase).toBe(0x1234_5678_9abcn)
})

test('cpuid: its result can be replaced', async () => {
  await restart(
    'start:\n  mov rax, 0\n  mov rbx, 0\n  cpuid\n  mov rsi, DATA\n  store64 [rsi], rbx\n  store64 [rsi+8], rcx\n  jmp start',
  )
  vm.intercept({ kind: 'cpuid', leaf: 0 }, () => ({ registers: { rbx: 77n } }))
  vm.intercept({ kind: 'cpuid', leaf: 5 }, () => {
    throw new Error('leaf 5 was not asked for')
  })
  guest.runNow(5000)
  // "mock": what was not replaced is the CPU's own.
  expect([data(0), data(1)]).toEqual([77n, 0x6b63_6f6dn])
})

test('io: input can be given, output denied', async () => {
  await restart(
    'start:\n  mov rax, 4\n  syscall\n  mov rbx, DATA\n  store64 [rbx], rax\n  mov rdi, 65\n  mov rax, 3\n  syscall\n  jmp start',
  )
  const ports = new Set<string>()
  vm.intercept({ kind: 'io' }, (event) => {
    ports.add(`${event.direction} ${event.port} ${event.size}`)
    return event.direction === 'in' ? { emulate: { data: new Uint8Array([0xab]) } } : { deny: true }
  })
  guest.runNow(5000)
  expect(ports).toEqual(new Set(['in 113 1', 'out 233 1']))
  expect(data()).toBe(0xabn)
  expect(guest.console).toBe('')
})

test('descriptor: loads and stores', async () => {
  await restart('start:\n  mov rax, 6\n  syscall\n  jmp start')
  const seen = new Set<string>()
  const { idt } = vm.readRegisters(0)
  vm.intercept({ kind: 'descriptor' }, (event) => {
    seen.add(`${event.table} ${event.write}`)
    if (event.table === 'idt' && event.write) return { deny: true }
    return undefined
  })
  guest.runNow(5000)
  expect([...seen].sort()).toEqual([
    'gdt false',
    'gdt true',
    'idt false',
    'idt true',
    'ldt false',
    'ldt true',
    'tr false',
    'tr true',
  ])
  expect(vm.readRegisters(0).idt).toEqual(idt)
})

test('hypercall and privcall', async () => {
  await restart(
    'start:\n  mov rdi, 4711\n  mov rax, 5\n  syscall\n  mov rbx, DATA\n  store64 [rbx], rax\n  mov rax, 8\n  syscall\n  jmp start',
  )
  const privcalls = new Set<bigint>()
  vm.intercept({ kind: 'hypercall' }, (event) => ({ registers: { rax: (event.number ?? 0n) + 1n } }))
  vm.intercept({ kind: 'privcall' }, (event) => void privcalls.add(event.address))
  guest.runNow(5000)
  expect(data()).toBe(4712n)
  expect(privcalls).toEqual(new Set([kernelLabel('service_privileged')]))
})

test('int3: unanswered and reinjected the guest has it, denied it goes on behind', async () => {
  await restart(
    'start:\nhere:\n  int3\n  int 3\n  mov rbx, DATA\n  load64 rax, [rbx]\n  add rax, 1\n  store64 [rbx], rax\n  jmp start',
  )
  let answer: 'pass' | 'reinject' | 'inject' | 'deny' = 'pass'
  const lengths = new Set<number | undefined>()
  vm.intercept({ kind: 'int3' }, (event) => {
    lengths.add(event.length)
    if (answer === 'reinject') return { reinject: true }
    if (answer === 'inject') return { inject: { type: 'exception', vector: 3 } }
    return answer === 'deny' ? { deny: true } : undefined
  })
  for (const one of ['pass', 'reinject', 'inject', 'deny'] as const) {
    answer = one
    const before = guest.process('test')
    const ours = before.breakpoints
    guest.runNow(20_000)
    const after = guest.process('test')
    expect(after.rounds - before.rounds).toBeGreaterThan(10n)
    const received = after.breakpoints - ours
    // One may be on its way when the answer changes.
    if (one === 'deny') expect(received).toBeLessThanOrEqual(1n)
    else expect(Number(received - 2n * (after.rounds - before.rounds))).toBeCloseTo(0, -1)
  }
  expect(lengths).toEqual(new Set([1, 2]))
})

test('debug: unanswered the guest has it, denied it has not', async () => {
  await restart(
    'start:\n  int1\nbehind:\n  mov rbx, DATA\n  load64 rax, [rbx]\n  add rax, 1\n  store64 [rbx], rax\n  jmp start',
  )
  let deny = false
  const addresses = new Set<bigint>()
  vm.intercept({ kind: 'debug' }, (event) => {
    addresses.add(event.address)
    return deny ? { deny: true } : undefined
  })
  guest.runNow(5000)
  const { debugExceptions } = guest.process('test')
  expect(debugExceptions).toBeGreaterThan(10n)
  expect(addresses).toEqual(new Set([label('behind')]))
  deny = true
  guest.runNow(5000)
  expect(guest.process('test').debugExceptions - debugExceptions).toBeLessThanOrEqual(1n)
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
})

test('the trap flag of the guest steps it', async () => {
  await restart(
    'start:\n  pushf\n  pop rax\n  or rax, 0x100\n  push rax\n  popf\none:\n  nop\ntwo:\n  mov rax, 0\nback: jmp back',
  )
  const addresses: bigint[] = []
  vm.intercept({ kind: 'debug' }, (event) => {
    addresses.push(event.address)
    expect((event.dr6 ?? 0n) & 0x4000n).toBe(0x4000n)
    // Without, the handler's iret sets it again.
    return addresses.length === 3 ? { registers: { rflags: 0x202n }, deny: true } : { deny: true }
  })
  guest.runNow(5000)
  expect(addresses).toEqual([label('two'), label('back'), label('back')])
})

test('interrupt: a timer tick denied is lost, and the process keeps its vCPU', () => {
  guest.runNow(3000)
  const before = guest.count('cr')
  let ticks = 0
  vm.intercept({ kind: 'interrupt', vector: 32 }, (event) => {
    if (event.vector === 32) ticks += 1
    return { deny: true }
  })
  guest.runNow(20_000)
  expect(ticks).toBeGreaterThan(10)
  expect(guest.count('cr')).toBe(before)
})

test('interrupt: a fault denied is skipped with its instruction', async () => {
  await restart('start:\n  mov rbx, DATA\n  ud2\n  load64 rax, [rbx]\n  add rax, 1\n  store64 [rbx], rax\n  jmp start')
  guest.runNow(2000)
  expect(guest.process('test').rounds).toBe(0n)
  vm.intercept({ kind: 'interrupt', vector: 6 }, () => ({ deny: true }) as const)
  guest.runNow(5000)
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
})

test('injection: exceptions, interrupts and NMIs reach the handlers of the guest', () => {
  guest.runNow(2000)
  const handled: bigint[] = []
  const handlers = ['non_maskable', 'device', 'fault', 'fault_with_code'].map(kernelLabel)
  vm.intercept(
    handlers.map((address) => ({ kind: 'breakpoint' as const, address })),
    (event) => void handled.push(event.address),
  )
  const inject = (injection: Parameters<typeof vm.inject>[1]) => {
    vm.inject(0, injection)
    guest.runNow(300)
  }
  inject({ type: 'nmi' })
  inject({ type: 'interrupt', vector: 0x81 })
  inject({ type: 'exception', vector: 6 })
  inject({ type: 'exception', vector: 14, errorCode: 4, cr2: 0xffff_8000_1234_5678n })
  // A fault without an error code goes on, with one made up, as those that have one.
  expect(handled).toEqual([...handlers, kernelLabel('fault_with_code')])
  expect(vm.readRegisters(0).cr2).toBe(0xffff_8000_1234_5678n)
})

test('registers of a reply hold from then on; one that moves rip drops what was at hand', async () => {
  await restart(
    'start:\n  mov rbx, DATA\nhere:\n  mov rax, 5\n  store64 [rbx], rax\nthere:\n  store64 [rbx+8], rax\n  jmp start',
  )
  const answers = [{ registers: { rax: 99n, rip: label('there') } }]
  vm.intercept({ kind: 'breakpoint', address: label('here'), ...space() }, () => answers[0])
  guest.runNow(3000)
  expect([data(0), data(1)]).toEqual([0n, 99n])
})

test.each([
  ['no whole instruction', { emulate: { instruction: new Uint8Array([0x10, 0]) } }],
  ['no bytes', { emulate: { data: 'text' as unknown as Uint8Array } }],
  ['no register', { registers: { rip: 0x8000_0000_0000_0000n } }],
  ['no view', { step: { view: 5 } }],
] as const)('a reply with %s is refused', async (_, parts) => {
  const intercept = vm.intercept({ kind: 'breakpoint', address: label('start'), ...space() }, () => parts)
  guest.runNow(10_000)
  await expect(intercept.ended).rejects.toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  expect(guest.held).toEqual([])
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
})

test('a reply that cannot be is refused, and the guest goes on', async () => {
  const failures: MicrovmiError['code'][] = []
  const intercept = vm.intercept({ kind: 'breakpoint', address: label('start'), ...space() })
  const loop = (async () => {
    for await (const event of intercept) {
      try {
        event.reply({ view: 7 })
      } catch (error) {
        failures.push((error as MicrovmiError).code)
      }
      if (failures.length > 2) break
    }
  })()
  await guest.run(20_000)
  await loop
  expect(failures).toEqual(['BAD_ARGUMENT', 'BAD_ARGUMENT', 'BAD_ARGUMENT'])
  expect(guest.process('test').rounds).toBeGreaterThan(100n)
})
