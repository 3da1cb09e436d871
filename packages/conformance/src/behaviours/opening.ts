import { type Capability, type Driver, list, MicrovmiError, open, registrations, type VmBase } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, expectRejects, expectThrows } from '../expect.ts'
import { anyVm, demandAny, openAny, type Trial } from '../trial.ts'

/** Names that a shell, a path, a URL or a query would trip over. */
const NOBODY = [
  'nobody-has-this-name',
  'no body\'s "name"',
  '../../no such place',
  'a?b#c&d=e%2f',
  '; true',
  '-rf',
  'никто',
  'x'.repeat(5000),
]

/** Of what core says for a driver that gives no reason. */
const NO_REASON = 'the driver does not offer it'

/** From a name to an open VM. */
export const opening = behaviours('opening', (define) => {
  const none = { session: 'none' } as const

  define(
    'probe says that the driver can be used here',
    [],
    async ({ driver }) => {
      const probe = await driver.probe()
      expect(probe.usable, `probe() says that it cannot: ${probe.usable ? '' : probe.reason}`)
    },
    none,
  )

  define(
    'the VM is listed, and opens by its entry',
    [],
    async (trial) => {
      const { driver, guest, pace } = trial
      if (guest.listed === false) trial.skip('the fixture says that this VM cannot be listed')
      const found = await list({ driver: driver as Driver, timeout: pace.patience })
      const [failure] = found.failures
      if (failure) throw failure.error
      const names = found.vms.map(({ vm }) => vm)
      expectEqual(new Set(names).size, names.length, 'the number of different names (vm) in the listing')
      const vm = await trial.open()
      const entry = found.vms.find(({ id }) => id === vm.id)
      expect(entry !== undefined, `no entry of the listing has the id ${vm.id} of the VM; listed: ${names.join(', ')}`)
      expectEqual(entry.name, vm.name, "the name in the VM's entry")
      expectEqual(entry.hindrance, undefined, 'what hinders opening a VM that is open')
      await vm.close()
      const again = await trial.open({ vm: entry.vm })
      expectEqual(again.id, vm.id, 'the id of the VM that was opened by its entry')
      await again.close()
      const registered = registrations().find((registration) => (registration.driver as unknown) === driver)
      if (!registered || registered.problem) return
      const byTarget = await open(entry, guest.options ?? {})
      trial.afterwards(() => byTarget.close())
      expectEqual(byTarget.id, vm.id, 'the id of the VM that was opened by its target')
    },
    none,
  )

  define('the VM says what it is', [], (trial) => {
    const { driver, guest } = trial
    const vm: VmBase = trial.vm
    for (const name of ['name', 'id'] as const) expect(isText(vm[name]), `the VM's ${name} is empty`)
    expect(isText(vm.info.hypervisor), 'info.hypervisor is empty')
    expectEqual(vm.info.driver, driver.scheme, 'info.driver')
    const isCount = Number.isInteger(vm.vcpuCount) && vm.vcpuCount > 0
    expect(isCount, `the VM has ${vm.vcpuCount} vCPUs`)
    if (guest.vcpuCount !== undefined) expectEqual(vm.vcpuCount, guest.vcpuCount, 'vcpuCount')
    for (const [name, detail] of Object.entries(vm.info.details)) {
      const isPlain = ['string', 'number', 'boolean'].includes(typeof detail)
      expect(isPlain, `info.details.${name} is no string, number or boolean`)
    }
    for (const warning of vm.info.warnings) expect(isText(warning), 'a warning is empty')
  })

  define('what it could do and cannot here has its reason', [], (trial) => {
    const { driver } = trial
    const vm: VmBase = trial.vm
    for (const capability of new Set<Capability>([...driver.promises, ...driver.possible])) {
      if (vm.capabilities.has(capability)) continue
      const lack = expectThrows('UNSUPPORTED', `demand() of ${capability}`, () => demandAny(vm, capability))
      expect(!lack.message.includes(NO_REASON), `the backend's lacks tell nothing about ${capability}`)
    }
  })

  define(
    'a VM that is not there is not found',
    [],
    async (trial) => {
      const { driver, guest, pace } = trial
      for (const vm of NOBODY) {
        const opened = openAny(driver, { timeout: pace.patience, ...guest.options, vm })
        const what = `open() of '${vm.slice(0, 40)}', which is not there,`
        await trial.within(expectRejects('VM_NOT_FOUND', what, closing(opened)), what)
      }
    },
    none,
  )

  define(
    'deadlines',
    [],
    async (trial) => {
      const { driver, guest } = trial
      for (const timeout of [0, -1, Number.NaN, '5000']) {
        const opened = openAny(driver, { ...guest.options, vm: guest.vm, timeout })
        await expectRejects('BAD_ARGUMENT', `open() with a timeout of ${timeout}`, closing(opened))
      }
      const hurried = openAny(driver, { ...guest.options, vm: guest.vm, timeout: 1 })
      await trial.within(settled('TIMEOUT', 'open() that may take 1 ms', hurried), 'open() with a timeout of 1 ms')
      await (await trial.open()).close()
    },
    none,
  )

  define(
    'it can be given up',
    [],
    async (trial) => {
      const { driver, guest } = trial
      const early = { ...guest.options, vm: guest.vm, signal: AbortSignal.abort() }
      await expectRejects('ABORTED', 'open() with an aborted signal', closing(openAny(driver, early)))
      const controller = new AbortController()
      const late = openAny(driver, { ...guest.options, vm: guest.vm, signal: controller.signal })
      controller.abort()
      await trial.within(settled('ABORTED', 'open() that is given up', late), 'open() whose signal was aborted')
      await (await trial.open()).close()
    },
    none,
  )

  define(
    'it opens again and again',
    [],
    async (trial) => {
      let id: string | undefined
      for (let times = 1; times <= 5; times++) {
        const vm = await trial.within(trial.open(), `open() number ${times}`)
        id ??= vm.id
        expectEqual(vm.id, id, 'the id of the VM that was opened again')
        await trial.within(vm.close(), `close() number ${times}`)
      }
    },
    none,
  )

  define(
    'a second session beside the first',
    [],
    async (trial) => {
      const sessions = trial.part(trial.guest.sessions, 'Guest.sessions')
      const first = await trial.open()
      const use = readKnown(trial, first)
      use()
      if (sessions === 'one') {
        await expectRejects('BUSY', 'a second open()', trial.open())
      } else {
        const second = await trial.open()
        readKnown(trial, second)()
        use()
        await second.close()
      }
      use()
    },
    none,
  )
})

function isText(value: unknown): boolean {
  return typeof value === 'string' && value.trim() !== ''
}

/** What should not have been opened is closed. */
async function closing(opened: Promise<VmBase>): Promise<void> {
  await (await opened).close()
}

/** Settles once `opened` has: with a VM, which is closed, or with an error of this code; anything else is wrong. */
async function settled(code: 'TIMEOUT' | 'ABORTED', what: string, opened: Promise<VmBase>): Promise<void> {
  try {
    await closing(opened)
  } catch (error) {
    const fits = error instanceof MicrovmiError && error.code === code
    expect(fits, `${what} fails with ${String(error)}, not with ${code}`)
  }
}

/** Reads something that is known, where the driver reads memory. */
function readKnown(trial: Trial<never>, vm: VmBase): () => void {
  const [known] = trial.guest.memory?.known ?? []
  if (!known || !vm.capabilities.has('memory.read')) return () => void vm.vcpuCount
  const { memory } = anyVm(vm)
  return () => expectEqual(memory.readUint8(known.address), known.bytes[0], 'the first byte of known memory')
}
