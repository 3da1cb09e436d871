import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from '@microvmi/core'
import { monitor, prepared, startQemu } from '@microvmi/lab-qemu'
import { expect, test } from 'vitest'
import { kvm } from './index.ts'

test('the next one lets the guest go', async (context) => {
  const lab = await prepared(context, () => startQemu({ memoryMiB: 256, vcpus: 2 }))
  const { marks } = await lab.ready()
  const app = `
    import { open } from '@microvmi/core'
    import { kvm } from '@microvmi/driver-kvm'
    const vm = await open(kvm, { vm: ${JSON.stringify(lab.qmp)} })
    for await (const event of vm.intercept({ kind: 'breakpoint', address: ${marks.landmark}n })) {
      event.hold()
      console.log('held')
    }`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', app], {
    cwd: new URL('..', import.meta.url),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'close')
  expect(await monitor(lab.ownQmp, 'query-status')).toMatchObject({ status: 'debug' })
  const vm = await open(kvm, { vm: lab.qmp })
  expect(vm.info.warnings.join()).toContain('the guest, which they held, goes on')
  const landmarks = () => vm.memory.readUint64(marks.counters)
  const before = landmarks()
  await expect.poll(landmarks, { timeout: 20_000 }).toBeGreaterThan(before + 10n)
  await vm.close()
  expect(JSON.stringify(await monitor(lab.ownQmp, 'query-chardev'))).not.toContain('"label":"gdb"')
  await lab.stop()
})
