import { open } from '@microvmi/core'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createGuest, type Guest, mock } from './index.ts'

/** The app under test: which address spaces ran while it watched. */
async function addressSpaces(name: string, switches: number): Promise<Set<bigint>> {
  const vm = await open(mock, { vm: name })
  try {
    const seen = new Set<bigint>()
    let left = switches
    for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
      seen.add(event.new)
      left -= 1
      if (left === 0) break
    }
    return seen
  } finally {
    await vm.close()
  }
}

let guest: Guest

beforeEach(() => {
  const processes = [{ name: 'shell' }, { name: 'editor' }, { name: 'compiler' }, { name: 'browser' }]
  guest = createGuest({ name: 'test', seed: 42, vcpus: 2, processes })
})

afterEach(() => {
  guest.remove()
})

test('sees every process that runs', async () => {
  const watching = addressSpaces('test', 20)
  await guest.run(50_000)
  expect(await watching).toEqual(new Set(guest.processes.map(({ cr3 }) => cr3)))
})

test('leaves no trace', async () => {
  const watching = addressSpaces('test', 20)
  await guest.run(50_000)
  await watching
  const twin = createGuest({
    name: 'twin',
    seed: 42,
    vcpus: 2,
    processes: guest.processes.map(({ name }) => ({ name })),
  })
  twin.runNow(50_000)
  expect(guest.process('editor').rounds).toBe(twin.process('editor').rounds)
  twin.remove()
})

test('says so when the VM goes away', async () => {
  const watching = addressSpaces('test', 1_000_000)
  await guest.run(5000)
  guest.vanish()
  await expect(watching).rejects.toMatchObject({ code: 'VM_GONE' })
})
