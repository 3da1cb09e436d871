import { writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { controlPage, type GuestFacts, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { AddressSpace } from '@microvmi/paging'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { xen } from './index.ts'
import { withHiddenBreakpoint } from './provocations.testing.ts'
import { SessionNote } from './session-note.ts'
import { viewStateOf, XenViews } from './views.ts'
import { Xen } from './xen.ts'

const PAGE = 4096
/** dom0's clock runs about twice as fast as its processor. */
const PATIENCE = 60_000

async function session(guest: XenGuest, facts: GuestFacts) {
  const vm = await open(xen, {
    vm: guest.uuid,
    require: [
      'events.memory',
      'events.singlestep',
      'events.int3',
      'events.breakpoint',
      'memory.access',
      'reply.step',
      'reply.deny',
    ],
  })
  const turns = () => Number(vm.memory.readUint64(facts.control + controlPage.vcpus + controlPage.counts.turns))
  const goesOn = async () => {
    const before = turns()
    await until('the guest goes on', () => turns() > before + 3)
  }
  return { vm, turns, goesOn, [Symbol.asyncDispose]: () => vm.close() }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE; !holds(); await setTimeout(10)) {
    if (performance.now() > end) throw new Error(`not within ${PATIENCE / 1000} seconds: ${what}`)
  }
}

describe('a domain with views', () => {
  let guest: XenGuest
  let facts: GuestFacts

  beforeAll(async () => {
    guest = await startGuest({ type: 'pvh', configuration: 'altp2m = "external"' })
    facts = await guest.ready()
  })
  afterAll(() => guest.destroy())

  test('every write to a page is reported, before it is made', async () => {
    await using at = await session(guest, facts)
    const { vm, turns } = at
    const counts: number[] = []
    const address = facts.control + controlPage.vcpus + controlPage.counts.turns
    const intercept = vm.intercept({ kind: 'memory', address: facts.control, length: PAGE, access: 'w' }, (event) => {
      if (event.address === address) counts.push(turns())
      expect(event.complete).toBe(true)
    })
    await until('ten of them', () => counts.length >= 10)
    intercept.close()
    const [first = 0] = counts
    expect(counts).toEqual(counts.map((_, index) => first + index))
    await at.goesOn()
  })

  test('a breakpoint that no read shows is stepped over: in a page of 4 KiB, and in one of 2 MiB', async () => {
    await using at = await session(guest, facts)
    const { vm } = at
    const [mark] = facts.marks
    const syscall = facts.symbols.entry_SYSCALL_64 ?? 0n
    const kernel = AddressSpace.of(vm, 0).translate(BigInt.asUintN(64, syscall))
    expect(kernel?.pageSize).toBe(2 ** 21)
    await withHiddenBreakpoint(vm as never, mark?.physical ?? 0, mark?.landmark ?? 0n)
    await withHiddenBreakpoint(vm as never, kernel?.physicalAddress ?? 0, BigInt.asUintN(64, syscall))
    await at.goesOn()
  })

  test('a vCPU that is stepped all the time runs freely afterwards', async () => {
    await using at = await session(guest, facts)
    const steps: bigint[] = []
    for await (const event of at.vm.intercept({ kind: 'singlestep' })) {
      expect(event.registers?.rip).toBe(event.address)
      steps.push(event.address)
      if (steps.length === 200) break
    }
    expect(new Set(steps).size).toBeGreaterThan(5)
    await at.goesOn()
  })

  test('accesses that the app forbids are let through where nobody listens', async () => {
    await using at = await session(guest, facts)
    at.vm.memory.setAccess(facts.control, PAGE, 'r')
    await at.goesOn()
    at.vm.memory.setAccess(facts.control, PAGE, 'rwx')
    await at.goesOn()
  })

  test('a write that is denied is not made', async () => {
    await using at = await session(guest, facts)
    const { vm, turns } = at
    const address = facts.control + controlPage.vcpus + controlPage.counts.turns
    let denied: number | undefined
    for await (const event of vm.intercept({ kind: 'memory', address: facts.control, length: PAGE, access: 'w' })) {
      if (event.address !== address) continue
      if (denied !== undefined) {
        expect(turns()).toBe(denied)
        break
      }
      denied = turns()
      event.reply({ deny: true })
    }
    await at.goesOn()
  })

  test('views that a killed session has left are taken back', async () => {
    const host = Xen.open()
    const note = new SessionNote(guest.uuid)
    new XenViews(host, guest.domid, 'off', note, () => 1).create()
    expect(viewStateOf(host, guest.domid)).toBe('on')
    // No process has this number (Linux, PID_MAX_LIMIT is 2^22).
    writeFileSync(`/run/microvmi-xen/${guest.uuid}`, `${2 ** 22} 1`)
    {
      await using at = await session(guest, facts)
      expect(at.vm.info.warnings).toEqual([expect.stringContaining('killed')])
      expect(viewStateOf(host, guest.domid)).toBe('off')
      await at.goesOn()
    }
    expect(note.leftBehind()).toBeUndefined()
    host.close()
  })
})

describe('a domain without views', () => {
  let guest: XenGuest
  let facts: GuestFacts

  beforeAll(async () => {
    guest = await startGuest({ type: 'pvh', name: 'no-views', configuration: 'altp2m = "disabled"' })
    facts = await guest.ready()
  })
  afterAll(() => guest.destroy())

  test('it says what would help', async () => {
    await using at = await session(guest, facts)
    expect(at.vm.capabilities.has('views')).toBe(false)
    await expect(open(xen, { vm: guest.uuid, require: ['views'] })).rejects.toThrow('altp2m = "external"')
  })

  test('writes are reported and let through, and other pages are as they were', async () => {
    await using at = await session(guest, facts)
    let events = 0
    const intercept = at.vm.intercept({ kind: 'memory', address: facts.control, length: PAGE, access: 'w' }, () => {
      events += 1
    })
    await until('events', () => events > 20)
    intercept.close()
    await at.goesOn()
    expect(at.vm.memory.getAccess(facts.control)).toBe('rwx')
  })
})
