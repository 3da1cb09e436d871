import { createHash } from 'node:crypto'
import { open } from '@microvmi/core'
import { afterEach, expect, test, vi } from 'vitest'
import { createGuest, type Guest, type GuestOptions, mock } from './index.ts'

// Busy machines take their time.
vi.setConfig({ testTimeout: 30_000 })

const made: Guest[] = []

function guestOf(options: GuestOptions): Guest {
  const guest = createGuest(options)
  made.push(guest)
  return guest
}

afterEach(() => {
  for (const guest of made.splice(0)) guest.remove()
})

/** What each vCPU of a guest did on its own, and all of memory. */
function trace(guest: Guest): unknown {
  const memory = createHash('sha256')
  for (const { start, length } of guest.ranges) memory.update(guest.read(start, length))
  const vcpus = Array.from({ length: guest.vcpuCount }, (_, vcpu) => ({
    did: guest.journal.filter((entry) => entry.vcpu === vcpu),
    registers: guest.vcpu(vcpu).registers,
  }))
  return { vcpus, memory: memory.digest('hex') }
}

const INSTRUCTIONS = 20_000

/** The same guest, unwatched. */
function unwatched(options: GuestOptions): unknown {
  const guest = guestOf(options)
  guest.runNow(INSTRUCTIONS)
  return trace(guest)
}

const options: GuestOptions = { name: 'watched', seed: 5, journalLength: 1_000_000 }

async function watched(arm: (vm: Awaited<ReturnType<typeof opened>>, guest: Guest) => () => number) {
  const guest = guestOf(options)
  const vm = await opened(guest)
  const seen = arm(vm, guest)
  guest.runNow(INSTRUCTIONS)
  const events = seen()
  await vm.close()
  return { traced: trace(guest), events }
}

function opened(guest: Guest) {
  return open(mock, { vm: guest.id })
}

test('a guest does the same whether all that it does is watched or not', async () => {
  const { traced, events } = await watched((vm) => {
    let count = 0
    vm.intercept(
      [
        { kind: 'cr', register: 'cr0', onChange: false },
        { kind: 'cr', register: 'cr3', onChange: false },
        { kind: 'cr', register: 'cr4' },
        { kind: 'cr', register: 'xcr0' },
        { kind: 'msr', msr: 0xc000_0100 },
        { kind: 'msr', msr: 0xc000_0102, onChange: false },
        { kind: 'int3' },
        { kind: 'cpuid' },
        { kind: 'descriptor' },
        { kind: 'debug' },
        { kind: 'hypercall' },
        { kind: 'privcall' },
        { kind: 'io' },
        { kind: 'interrupt' },
      ],
      () => {
        count += 1
      },
    )
    return () => count
  })
  expect(traced).toEqual(unwatched({ ...options, name: 'alone' }))
  expect(events).toBeGreaterThan(300)
})

test('... whether it is stepped or not', async () => {
  const { traced, events } = await watched((vm) => {
    let count = 0
    vm.intercept({ kind: 'singlestep' }, () => {
      count += 1
    })
    return () => count
  })
  expect(traced).toEqual(unwatched({ ...options, name: 'alone' }))
  expect(events).toBeGreaterThan(INSTRUCTIONS)
})

test('... whether breakpoints are in its way or not', async () => {
  const { traced, events } = await watched((vm, guest) => {
    let count = 0
    const address = (label: string) => guest.kernel.labels.get(label) ?? 0n
    const caller = guest.process('caller')
    vm.intercept(
      [
        { kind: 'breakpoint', address: address('switch') },
        { kind: 'breakpoint', address: address('timer'), method: 'hardware' },
        { kind: 'breakpoint', address: address('breakpoint') },
        // The guest's own int3 is at this one.
        { kind: 'breakpoint', address: caller.labels.get('own_breakpoint') ?? 0n, addressSpace: caller.cr3 },
        // All processes begin here.
        { kind: 'breakpoint', address: 0x40_0000n, method: 'hardware' },
        { kind: 'breakpoint', physicalAddress: guest.translate(guest.process('walker'), 0x40_0000n) ?? 0 },
        { kind: 'watchpoint', address: 0x60_0000n, length: 8, access: 'rw' },
      ],
      () => {
        count += 1
      },
    )
    return () => count
  })
  expect(traced).toEqual(unwatched({ ...options, name: 'alone' }))
  expect(events).toBeGreaterThan(300)
})

test('... whether its memory is guarded or not', async () => {
  const { traced, events } = await watched((vm, guest) => {
    let count = 0
    vm.intercept(
      guest.ranges.map(({ start, length }) => ({
        kind: 'memory' as const,
        address: start,
        length,
        access: 'rwx' as const,
      })),
      () => {
        count += 1
      },
    )
    return () => count
  })
  expect(traced).toEqual(unwatched({ ...options, name: 'alone' }))
  expect(events).toBeGreaterThan(INSTRUCTIONS)
})

test('... in other views, and with all of these at once', async () => {
  const { traced } = await watched((vm, guest) => {
    vm.views.switch(vm.views.create())
    const { start, length } = guest.ranges.find(({ start }) => start === 0x10_0000) ?? { start: 0, length: 1 }
    vm.intercept(
      [
        { kind: 'memory', address: start, length, access: 'rw' },
        { kind: 'breakpoint', address: guest.kernel.labels.get('switch') ?? 0n },
        { kind: 'breakpoint', address: guest.kernel.labels.get('leave') ?? 0n, method: 'hardware' },
        { kind: 'singlestep' },
        { kind: 'interrupt' },
        { kind: 'cr', register: 'cr3' },
        { kind: 'int3' },
        { kind: 'debug' },
        { kind: 'cpuid' },
      ],
      () => {},
    )
    return () => 0
  })
  expect(traced).toEqual(unwatched({ ...options, name: 'alone' }))
})

test('the same seed gives the same guest, another one another', () => {
  const one = unwatched(options)
  expect(unwatched(options)).toEqual(one)
  expect(unwatched({ ...options, seed: 6 })).not.toEqual(one)
})

test('what a vCPU does does not depend on how the others are paced', async () => {
  const guest = guestOf(options)
  for (let done = 0; done < INSTRUCTIONS; done += 5000) guest.runNow(5000)
  expect(trace(guest)).toEqual(unwatched(options))
})
