import { readdirSync } from 'node:fs'
import { open } from '@microvmi/core'
import { monitor, prepared, type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { kvm } from './index.ts'
import { parseInfoRegisters } from './info-registers.ts'

let started: QemuLab | undefined
let lab: QemuLab
beforeEach(async (context) => {
  started ??= await prepared(context, () => startQemu({ vcpus: 2, cpu: 'max', memoryMiB: 256 }))
  lab = started
  await lab.ready()
})
afterAll(() => started?.stop())

const status = async () => (await monitor(lab.ownQmp, 'query-status')) as { status: string; running: boolean }

describe.each(['running', 'paused'] as const)('a VM that is %s', (state) => {
  beforeEach(async () => {
    await monitor(lab.ownQmp, state === 'paused' ? 'stop' : 'cont')
  })

  test('stays so, whatever is read and written', async () => {
    await using vm = await open(kvm, { vm: lab.qmp })
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const { r15, rflags } = vm.readRegisters(vcpu)
      expect((await status()).running).toBe(state === 'running')
      vm.writeRegisters(vcpu, state === 'paused' ? { r15, rflags } : {})
      expect((await status()).running).toBe(state === 'running')
    }
    vm.pause().end()
    expect(vm.runState()).toBe(state)
    await vm.close()
    expect((await status()).running).toBe(state === 'running')
  })
})

test('every register is what QEMU itself prints, and those that it does not print are there too', async () => {
  await using vm = await open(kvm, { vm: lab.qmp })
  using _pause = vm.pause()
  for (const vcpu of [0, 1]) {
    const registers = vm.readRegisters(vcpu)
    const text = (await monitor(lab.ownQmp, 'human-monitor-command', {
      'command-line': 'info registers',
      'cpu-index': vcpu,
    })) as string
    expect(registers).toMatchObject(parseInfoRegisters(text))
    expect(registers.star).toBe(0x23_0010_0000_0000n)
    expect(registers.lstar).toBe((await lab.ready()).symbols.entry_SYSCALL_64)
    expect(registers.xcr0).toBeGreaterThan(0n)
    expect(registers.apicBase).toBe(vcpu === 0 ? 0xfee0_0900n : 0xfee0_0800n)
    expect(vm.readMsr(vcpu, 0xc000_0082)).toBe(registers.lstar)
    expect(() => vm.readMsr(vcpu, 0x10)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  }
  expect(vm.info.details.registers).toBe('device state')
})

test('what is written reads back, on the vCPU that was meant, and the gdbstub is gone again', async () => {
  await using vm = await open(kvm, { vm: lab.qmp })
  using _pause = vm.pause()
  const before = [0, 1].map((vcpu) => vm.readRegisters(vcpu))
  const changes = {
    rax: 0x1111_2222_3333_4444n,
    r15: 2n ** 64n - 1n,
    rflags: 0x202n,
    rip: 0xffff_ffff_8100_0000n,
    cr2: 0x1234n,
    cr8: 3n,
    kernelGsBase: 0xffff_8880_1234_5678n,
  }
  vm.writeRegisters(1, changes)
  expect(vm.readRegisters(1)).toMatchObject(changes)
  expect(vm.readRegisters(0)).toEqual(before[0])
  const { rax = 0n, r15 = 0n, rflags = 0n, rip = 0n, cr2 = 0n, cr8 = 0n, kernelGsBase = 0n } = before[1] ?? {}
  vm.writeRegisters(1, { rax, r15, rflags, rip, cr2, cr8, kernelGsBase })
  expect(vm.readRegisters(1)).toEqual(before[1])
  const chardevs = (await monitor(lab.ownQmp, 'query-chardev')) as { label: string }[]
  expect(chardevs.map(({ label }) => label)).not.toContain('gdb')
})

test('a value that does not fit is refused before anything is written', async () => {
  await using vm = await open(kvm, { vm: lab.qmp })
  using _pause = vm.pause()
  const before = vm.readRegisters(0)
  expect(() => vm.writeRegisters(0, { rax: 7n, rflags: 2n ** 40n })).toThrow(
    expect.objectContaining({ code: 'BAD_ARGUMENT' }),
  )
  expect(() => vm.writeRegisters(0, { rax: 7n, lstar: 2n })).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  expect(vm.readRegisters(0)).toEqual(before)
})

test('the guest goes on after registers were written, and nothing is left on the host', async () => {
  await monitor(lab.ownQmp, 'cont')
  {
    await using vm = await open(kvm, { vm: lab.qmp })
    const { r15 } = vm.readRegisters(0)
    expect(typeof r15).toBe('bigint')
  }
  const rounds = lab.tick()?.rounds ?? 0
  await expect.poll(() => lab.tick()?.rounds ?? 0, { timeout: 10_000 }).toBeGreaterThan(rounds)
  expect(readdirSync('/dev/shm').filter((name) => name.startsWith(`microvmi-kvm-${process.pid}-`))).toEqual([])
})

test("a gdbstub of the user's is used and left", async (context) => {
  await using own = await prepared(context, () => startQemu({ gdb: true, paused: true }))
  await using vm = await open(kvm, { vm: own.qmp })
  vm.writeRegisters(0, { rax: 5n })
  expect(vm.readRegisters(0).rax).toBe(5n)
  const chardevs = (await monitor(own.ownQmp, 'query-chardev')) as { label: string }[]
  expect(chardevs.map(({ label }) => label)).toContain('gdb')
  expect(await monitor(own.ownQmp, 'query-status')).toMatchObject({ running: false })
})
