import { execFileSync } from 'node:child_process'
import koffi from 'koffi'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startGuest, type XenGuest } from './src/index.ts'

const printed = (command: string, ...words: string[]) => execFileSync(command, words, { encoding: 'utf8' }).trim()

/** Tells when something happened, in seconds since dom0's kernel started. */
function note(what: string): void {
  console.log(`${printed('cat', '/proc/uptime').split(' ')[0]} s: ${what}`)
}

/** Some of xenctrl.h. This file's tests are collected where there is no such library: it is loaded in dom0. */
function xenControl() {
  const library = koffi.load('libxenctrl.so.4.17')
  return {
    open: library.func('void *xc_interface_open(void *logger, void *dombuild_logger, uint32_t flags)'),
    close: library.func('int xc_interface_close(void *xch)'),
    capabilities: library.func('int xc_monitor_get_capabilities(void *xch, uint32_t domid, _Out_ uint32_t *bits)'),
    enable: library.func('void *xc_monitor_enable(void *xch, uint32_t domid, _Out_ uint32_t *port)'),
    disable: library.func('int xc_monitor_disable(void *xch, uint32_t domid)'),
    setAccess: library.func(
      'int xc_set_mem_access(void *xch, uint32_t domid, int access, uint64_t first, uint32_t count)',
    ),
    getAccess: library.func('int xc_get_mem_access(void *xch, uint32_t domid, uint64_t frame, _Out_ int *access)'),
    setViews: library.func('int xc_altp2m_set_domain_state(void *xch, uint32_t domid, bool state)'),
    createView: library.func('int xc_altp2m_create_view(void *xch, uint32_t domid, int access, _Out_ uint16_t *view)'),
    switchView: library.func('int xc_altp2m_switch_to_view(void *xch, uint32_t domid, uint16_t view)'),
    destroyView: library.func('int xc_altp2m_destroy_view(void *xch, uint32_t domid, uint16_t view)'),
  }
}

const VIEWS = 'altp2m = "external"'
/** XENMEM_access_r and XENMEM_access_rwx (xen/memory.h). */
const ACCESS = { r: 1, rwx: 7 }
/** The bit of XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP (xen/domctl.h). */
const SINGLESTEP = 1 << 2

let xen: ReturnType<typeof xenControl>
let xch: unknown
let guest: XenGuest

beforeAll(async () => {
  note('the tests begin')
  xen = xenControl()
  xch = xen.open(null, null, 0)
  guest = await startGuest({ type: 'pvh', configuration: VIEWS })
  note('a guest is created')
}, 300_000)

afterAll(async () => {
  await guest.destroy()
  xen.close(xch)
}, 120_000)

test('this is dom0 of a Xen on a processor of Intel, with EPT', () => {
  expect(printed('cat', '/proc/cpuinfo')).toContain('GenuineIntel')
  expect(printed('xl', 'info')).toMatch(/^virt_caps +: .*\bhvm\b.*\bhap\b/m)
  expect(printed('xl', 'list')).toMatch(/^Domain-0 +0 /m)
}, 120_000)

test('a guest runs', async () => {
  const facts = await guest.ready()
  note('it is ready')
  expect(facts).toMatchObject({ vcpus: 1, marks: [{ vcpu: 0 }] })
  await expect.poll(() => guest.tick()?.turns, { timeout: 60_000 }).toBeGreaterThan(20)
}, 300_000)

test('its monitor can have single steps', () => {
  const bits = [0]
  expect(xen.capabilities(xch, guest.domid, bits)).toBe(0)
  note(`capabilities 0x${bits[0]?.toString(16)}`)
  expect((bits[0] ?? 0) & SINGLESTEP).toBe(SINGLESTEP)
}, 120_000)

test("its pages' access can be set", async () => {
  const { scratch } = await guest.ready()
  const frame = BigInt(scratch[0] ?? 0) >> 12n
  // Without a monitor Xen refuses: the faults would have nowhere to go.
  expect(xen.enable(xch, guest.domid, [0])).not.toBeNull()
  try {
    expect(xen.setAccess(xch, guest.domid, ACCESS.r, frame, 1)).toBe(0)
    const access = [0]
    expect(xen.getAccess(xch, guest.domid, frame, access)).toBe(0)
    expect(access[0]).toBe(ACCESS.r)
    expect(xen.setAccess(xch, guest.domid, ACCESS.rwx, frame, 1)).toBe(0)
  } finally {
    xen.disable(xch, guest.domid)
  }
}, 120_000)

test('it runs in another view', async () => {
  const view = [0]
  expect(xen.setViews(xch, guest.domid, true)).toBe(0)
  expect(xen.createView(xch, guest.domid, ACCESS.rwx, view)).toBe(0)
  expect(view[0]).toBeGreaterThan(0)
  expect(xen.switchView(xch, guest.domid, view[0])).toBe(0)
  note('it is in another view')
  const before = guest.tick()?.turns ?? 0
  await expect.poll(() => guest.tick()?.turns, { timeout: 60_000 }).toBeGreaterThan(before + 20)
  expect(xen.switchView(xch, guest.domid, 0)).toBe(0)
  expect(xen.destroyView(xch, guest.domid, view[0])).toBe(0)
  expect(xen.setViews(xch, guest.domid, false)).toBe(0)
  note('and it is in none')
}, 300_000)
