import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { controlPage, startGuest } from '@microvmi/lab-xen'
import { expect, test } from 'vitest'
import { xen } from './index.ts'

const ENOUGH = 50
const DEADLINE = 30_000

test('on each vCPU, as many accesses to ports are reported as the guest counts', async () => {
  await using guest = await startGuest({ type: 'pvh', vcpus: 2 })
  const { control } = await guest.ready()
  await using vm = await open(xen, { vm: guest.uuid, require: ['events.io'] })
  const count = (vcpu: number) => {
    const own = control + controlPage.vcpus + vcpu * controlPage.vcpuLength
    const { portReads, portWrites } = controlPage.counts
    return Number(vm.memory.readUint64(own + portReads) + vm.memory.readUint64(own + portWrites))
  }
  const events = [0, 0]
  const lease = vm.pause()
  const intercept = vm.intercept({ kind: 'io' }, ({ vcpu }) => {
    events[vcpu] = (events[vcpu] ?? 0) + 1
  })
  const before = [count(0), count(1)]
  lease.end()
  for (const end = performance.now() + DEADLINE; events.some((one) => one < ENOUGH); await setTimeout(10)) {
    if (performance.now() > end) throw new Error(`${events.join(' and ')} events within ${DEADLINE / 1000} seconds`)
  }
  const second = vm.pause()
  await setTimeout(100)
  const after = [count(0), count(1)]
  const seen = [...events]
  second.end()
  intercept.close()
  for (const vcpu of [0, 1]) {
    // The guest counts behind the access: at either end it may stand between the two.
    expect(Math.abs((after[vcpu] ?? 0) - (before[vcpu] ?? 0) - (seen[vcpu] ?? 0))).toBeLessThanOrEqual(1)
  }
})
