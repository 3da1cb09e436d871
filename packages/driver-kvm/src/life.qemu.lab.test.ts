import { execFile } from 'node:child_process'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { list, open } from '@microvmi/core'
import { monitor, prepared, startQemu } from '@microvmi/lab-qemu'
import { expect, test } from 'vitest'
import { kvm } from './index.ts'

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

test('found by its name, however unusual, by pid and by socket; two of one name are ambiguous', async (context) => {
  const name = 'a name, with #1?/../ünïcode'
  await using lab = await prepared(context, () => startQemu({ name, paused: true }))
  for (const vm of [name, String(lab.pid), lab.qmp]) {
    await using opened = await open(kvm, { vm })
    expect(opened).toMatchObject({ name, id: String(lab.pid) })
  }
  const { vms } = await list({ driver: kvm })
  expect(vms.find(({ id }) => id === String(lab.pid))).toMatchObject({ name })
  await using _twin = await startQemu({ name, paused: true })
  await expect(open(kvm, { vm: name })).rejects.toEqual(failing('VM_AMBIGUOUS'))
  await expect(open(kvm, { vm: 'no such VM' })).rejects.toEqual(failing('VM_NOT_FOUND'))
})

test('a monitor that someone else holds is BUSY, one that is not there is said to be missing', async (context) => {
  await using lab = await prepared(context, () => startQemu({ name: 'held', paused: true }))
  const holders = [connect(lab.qmp), connect(lab.ownQmp)]
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.once('data', resolve))))
  await expect(open(kvm, { vm: 'held', timeout: 300 })).rejects.toEqual(failing('BUSY'))
  for (const holder of holders) holder.destroy()
  await using _without = await startQemu({ name: 'no monitor', monitor: false, paused: true })
  await expect(open(kvm, { vm: 'no monitor' })).rejects.toThrow(/no QMP socket: start QEMU with -qmp/)
})

test('lifecycle events: what others do is told, our own pauses are not', async (context) => {
  await using lab = await prepared(context, () => startQemu())
  await lab.ready()
  const vm = await open(kvm, { vm: lab.qmp })
  const changes: string[] = []
  const watching = (async () => {
    for await (const { change, stops } of vm.intercept({ kind: 'lifecycle' })) changes.push(`${change} ${stops}`)
  })()
  vm.pause().end()
  vm.readRegisters(0)
  for (const command of ['stop', 'cont', 'system_reset']) {
    await monitor(lab.ownQmp, command)
    await setTimeout(100)
  }
  // The guest may reset itself again while it boots.
  expect(changes.slice(0, 3)).toEqual(['paused none', 'resumed none', 'reset none'])
  await monitor(lab.ownQmp, 'quit').catch(() => undefined)
  await expect(watching).rejects.toEqual(failing('VM_GONE'))
  expect(changes.at(-1)).toBe('shutdown none')
  await vm.close()
})

test.for(['file', 'private'] as const)(
  'QEMU killed, RAM %s: VM_GONE from every call, at once',
  async (ram, context) => {
    const lab = await prepared(context, () => startQemu({ ram, paused: true }))
    const vm = await open(kvm, { vm: lab.qmp, require: ['memory.write'] })
    const into = new Uint8Array(4096)
    vm.memory.read(0x10_0000, into)
    process.kill(lab.pid, 'SIGKILL')
    const started = performance.now()
    const reading = async () => {
      for (;;) {
        vm.memory.read(0x10_0000, into)
        await setTimeout(1)
      }
    }
    await expect(reading()).rejects.toEqual(failing('VM_GONE'))
    const calls = [
      () => vm.memory.regions(),
      () => vm.memory.write(0x10_0000, into),
      () => vm.readRegisters(0),
      () => vm.writeRegisters(0, { rax: 1n }),
      () => vm.runState(),
      () => vm.setRunState('running'),
      () => vm.pause(),
    ]
    for (const call of calls) expect(call).toThrow(failing('VM_GONE'))
    const piece = vm.memory.pieces()[Symbol.asyncIterator]().next()
    await expect(piece).rejects.toEqual(failing('VM_GONE'))
    expect(performance.now() - started).toBeLessThan(5000)
    await vm.close()
    await lab.stop()
  },
)

test('windows that were kept after close show zeros and do not end the process', async (context) => {
  await using lab = await prepared(context, () => startQemu({ paused: true }))
  const vm = await open(kvm, { vm: lab.qmp, require: ['memory.map', 'memory.write'] })
  vm.memory.writeUint64(0x20_0000, 0x1122n)
  const kept = vm.memory.map(0x20_0000, 4096, (window) => {
    expect(window[0]).toBe(0x22)
    return window
  })
  await vm.close()
  expect(kept[0]).toBe(0)
  kept[0] = 7
})

test('without the right to look into QEMU: shared RAM by its file, private RAM through QMP, and it says so', async (context) => {
  if (process.getuid?.() !== 0) context.skip('needs root, to take rights away')
  for (const [ram, memory] of [
    ['file', 'shared RAM, mapped'],
    ['private', 'QMP pmemsave (slow, reads only)'],
  ] as const) {
    await using lab = await prepared(context, () => startQemu({ ram, paused: true }))
    const program = `
      import { open } from '@microvmi/core'
      import { kvm } from '${new URL('./index.ts', import.meta.url).href}'
      const vm = await open(kvm, { vm: ${JSON.stringify(lab.qmp)} })
      const { details, warnings } = vm.info
      console.log(JSON.stringify({ memory: details.memory, warnings, capabilities: [...vm.capabilities], byte: vm.memory.readUint8(0xffff0) }))
      await vm.close()
    `
    const args = [
      '--bounding-set',
      '-sys_ptrace',
      '--',
      process.execPath,
      '--import',
      'tsx',
      '--input-type=module',
      '-e',
      program,
    ]
    const { stdout } = await promisify(execFile)('setpriv', args, { cwd: import.meta.dirname })
    const seen = JSON.parse(stdout) as { memory: string; warnings: string[]; capabilities: string[]; byte: number }
    expect(seen.memory).toBe(memory)
    expect(seen.warnings).toEqual([expect.stringContaining('ptrace_scope')])
    expect(seen.capabilities.includes('memory.write')).toBe(ram === 'file')
    // The first instruction at the reset vector's alias is a far jump.
    expect(seen.byte).toBe(0xea)
  }
})
