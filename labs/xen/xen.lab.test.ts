import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { startGuest } from './src/index.ts'

const printed = (command: string, ...words: string[]) => execFileSync(command, words, { encoding: 'utf8' }).trim()

test('this is dom0 of a Xen that can run hardware-assisted guests', () => {
  expect(printed('xl', 'list')).toMatch(/^Domain-0 +0 /m)
  expect(printed('xl', 'info')).toMatch(/^virt_caps +: .*\bhvm\b.*\bhap\b/m)
  expect(printed('xl', 'info')).toMatch(/^xen_version +: 4\.17\./m)
})

test.each(['pvh', 'hvm', 'pv'] as const)(
  'a guest runs: %s',
  async (type) => {
    const guest = await startGuest({ type })
    try {
      const domain = `/local/domain/${guest.domid}`
      expect(printed('xenstore-read', `${domain}/name`)).toBe(`microvmi-${type}`)
      expect(printed('xl', 'domid', guest.name)).toBe(String(guest.domid))
      const facts = await guest.ready()
      expect(facts).toMatchObject({ vcpus: 1, marks: [{ vcpu: 0 }] })
      expect(facts.known.physical).toHaveLength(16)
      await expect.poll(() => guest.tick()?.turns, { timeout: 20_000 }).toBeGreaterThan(20)
      const { turns = 0, breakpoints, traps, steps, msrs } = guest.tick() ?? {}
      // The counts may have been told in the middle of a turn.
      for (const count of [breakpoints, traps, steps, msrs]) expect([turns - 1, turns]).toContain(count)
    } finally {
      await guest.destroy()
    }
    expect(printed('xl', 'list')).not.toContain(guest.name)
  },
  200_000,
)

test('two processes switch when they are told to', async () => {
  const guest = await startGuest({ type: 'pvh', switching: true })
  try {
    await guest.ready()
    await expect.poll(() => guest.tick()?.rounds, { timeout: 20_000 }).toBeGreaterThan(1000)
  } finally {
    await guest.destroy()
  }
})
