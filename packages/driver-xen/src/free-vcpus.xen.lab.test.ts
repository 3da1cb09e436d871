import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { controlPage, startGuest } from '@microvmi/lab-xen'
import { expect, test } from 'vitest'
import { xen } from './index.ts'
import { answerFor, Monitor } from './monitor.ts'
import { SessionNote } from './session-note.ts'
import { Xen } from './xen.ts'

/** VM_EVENT_X86_CR3 (vm_event.h). */
const CR3 = 1

test('vCPUs that wait for an answer which nobody gives stand still, and run again when they are freed', async () => {
  const guest = await startGuest({ type: 'pvh', vcpus: 2 })
  const { control } = await guest.ready()
  const vm = await open(xen, { vm: guest.uuid })
  const turns = () =>
    [0, 1].map((vcpu) =>
      vm.memory.readUint64(control + controlPage.vcpus + vcpu * controlPage.vcpuLength + controlPage.counts.turns),
    )
  const advance = async () => {
    const before = turns()
    await setTimeout(1500)
    return turns().map((now, vcpu) => now > (before[vcpu] ?? 0n))
  }
  const host = Xen.open()
  try {
    await expect.poll(advance, { timeout: 30_000 }).toEqual([true, true])
    const monitor = new Monitor(host, guest.domid, new SessionNote(guest.uuid), () => {})
    expect(host.libraries.xc.monitor_write_ctrlreg(host.handle, guest.domid, CR3, true, true, 0n, true)).toBe(0)
    // Each stands when it has come by a write of CR3.
    await expect.poll(advance, { timeout: 30_000 }).toEqual([false, false])
    // Without the monitor they are no better off.
    monitor.close()
    expect(await advance()).toEqual([false, false])
    answerFor(host, guest.domid, 2)
    await expect.poll(advance, { timeout: 30_000 }).toEqual([true, true])
    // vCPUs that wait for nothing take it as nothing.
    answerFor(host, guest.domid, 2)
    await expect.poll(advance, { timeout: 30_000 }).toEqual([true, true])
  } finally {
    host.close()
    await vm.close()
    await guest.destroy()
  }
})
