import { execFileSync } from 'node:child_process'
import { knownPage } from '@microvmi/lab-qemu'
import koffi from 'koffi'
import { expect, test } from 'vitest'
import { controlPage, type GuestFacts, startGuest, type XenGuest } from './src/index.ts'

const printed = (command: string, ...words: string[]) => execFileSync(command, words, { encoding: 'utf8' }).trim()

/** A page of a guest's memory (xenforeignmemory.h). The mapping ends before the guest does. */
function pageOf(domid: number, address: number): Uint8Array {
  const library = koffi.load('libxenforeignmemory.so.1')
  const open = library.func('void *xenforeignmemory_open(void *logger, uint32_t flags)')
  const map = library.func(
    'void *xenforeignmemory_map(void *handle, uint32_t domid, int protection, size_t count, const uint64_t *frames, _Out_ int *errors)',
  )
  const unmap = library.func('int xenforeignmemory_unmap(void *handle, void *address, size_t count)')
  const close = library.func('int xenforeignmemory_close(void *handle)')
  const handle = open(null, 0)
  try {
    const errors = [0]
    const PROT_READ = 1
    const mapped = map(handle, domid, PROT_READ, 1, [BigInt(address) >> 12n], errors)
    if (errors[0] !== 0) throw new Error(`the page at 0x${address.toString(16)} is not to be mapped: ${errors[0]}`)
    try {
      return Uint8Array.from(koffi.decode(mapped, 'uint8_t', 4096))
    } finally {
      unmap(handle, mapped, 1)
    }
  } finally {
    close(handle)
  }
}

function checkMemory({ domid }: XenGuest, { known, control }: GuestFacts): void {
  for (const [index, address] of known.physical.entries()) expect(pageOf(domid, address)).toEqual(knownPage(index))
  const page = pageOf(domid, control)
  expect(new TextDecoder().decode(page.subarray(0, controlPage.flags))).toBe(controlPage.magic)
  const { turns, breakpoints } = controlPage.counts
  const count = (offset: number) => new DataView(page.buffer).getBigUint64(controlPage.vcpus + offset, true)
  expect([count(turns) - 1n, count(turns)]).toContain(count(breakpoints))
}

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
      // A PV guest's own addresses are not those by which its memory is mapped.
      if (type !== 'pv') checkMemory(guest, facts)
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
