import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { GUEST, prepared, startVirtualBox } from '@microvmi/lab-virtualbox'
import { expect, test } from 'vitest'
import { virtualbox } from './driver.ts'

const DRIVER = new URL('../index.ts', import.meta.url).href

test('breakpoints of an app that is killed are taken out by its successor, which can set its own', async (context) => {
  await using lab = await prepared(context, () => startVirtualBox({ vcpus: 2, debugger: 'gdb' }))
  const { vboxmanage, round, name: vm } = lab
  const program = `
    import { open } from '@microvmi/core'
    import { virtualbox } from '${DRIVER}'
    const vm = await open(virtualbox, { vm: '${vm}', vboxmanage: '${vboxmanage}', require: ['events.breakpoint'] })
    for await (const event of vm.intercept({ kind: 'breakpoint', address: ${round}n })) {
      event.hold()
      console.log('held')
    }
  `
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: new URL('.', import.meta.url),
  })
  await once(createInterface({ input: child.stdout }), 'line', { signal: AbortSignal.timeout(30_000) })
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended

  const options = {
    vm,
    vboxmanage,
    timeout: 10_000,
    require: ['memory.read', 'memory.write', 'events.breakpoint'],
  } as const
  await using successor = await open(virtualbox, options)
  expect(successor.info.warnings).toEqual([expect.stringContaining('a process that was killed were taken out: 1')])
  const count = () => successor.memory.readUint64(GUEST.count)
  const before = count()
  await setTimeout(500)
  expect(count()).toBeGreaterThan(before)
  let hits = 0
  for await (const event of successor.intercept({ kind: 'breakpoint', address: round })) {
    expect(event).toMatchObject({ vcpu: 0, address: round, stops: 'vm' })
    if (++hits === 3) break
  }
  const bytes = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9])
  successor.memory.write(GUEST.scratch + 3, bytes)
  const back = new Uint8Array(bytes.length)
  successor.memory.read(GUEST.scratch + 3, back)
  expect(back).toEqual(bytes)
  const after = count()
  await setTimeout(500)
  expect(count()).toBeGreaterThan(after)
})

test('a breakpoint is followed step by step', async (context) => {
  await using lab = await prepared(context, () => startVirtualBox({ vcpus: 2, debugger: 'gdb' }))
  const { vboxmanage, round, name } = lab
  const require = ['memory.read', 'events.breakpoint', 'events.singlestep', 'reply.step'] as const
  await using vm = await open(virtualbox, { vm: name, vboxmanage, timeout: 10_000, require })
  const addresses: bigint[] = []
  const steps = vm.intercept({ kind: 'singlestep', onlyAsked: true }, ({ vcpu, address }) => {
    expect(vcpu).toBe(0)
    addresses.push(address)
    return { step: addresses.length < 3 }
  })
  for await (const event of vm.intercept({ kind: 'breakpoint', address: round })) {
    event.reply({ step: true })
    break
  }
  await expect.poll(() => addresses.length, { timeout: 20_000 }).toBe(3)
  steps.close()
  expect(addresses.every((address) => address > round && address < round + 32n)).toBe(true)
  expect(new Set(addresses).size).toBe(3)
  const count = () => vm.memory.readUint64(GUEST.count)
  const before = count()
  await setTimeout(1000)
  expect(count()).toBeGreaterThan(before)
})
