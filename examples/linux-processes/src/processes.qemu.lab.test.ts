import { open } from '@microvmi/core'
import { kvm } from '@microvmi/driver-kvm'
import { type GuestFacts, knownPage, prepared, startQemu } from '@microvmi/lab-qemu'
import { AddressSpace, mappings, pagingOf } from '@microvmi/paging'
import { expect, test } from 'vitest'
import { type LinuxProfile, processes } from './processes.ts'

function profileOf({ symbols, offsets }: GuestFacts): LinuxProfile {
  const offset = (name: string) => {
    const bytes = offsets[name]
    if (bytes === undefined) throw new Error(`the guest did not tell where ${name} is`)
    return bytes
  }
  return {
    initTask: symbols.init_task ?? 0n,
    offsets: {
      tasks: offset('task_struct.tasks'),
      pid: offset('task_struct.pid'),
      comm: offset('task_struct.comm'),
      mm: offset('task_struct.mm'),
      pgd: offset('mm_struct.pgd'),
    },
  }
}

test.for(['qemu64', 'max'])(
  'names the processes of a real Linux guest, and reads the memory of one (%s)',
  async (cpu, context) => {
    await using lab = await prepared(context, () => startQemu({ cpu }))
    const facts = await lab.ready()
    await using vm = await open(kvm, { vm: lab.qmp })
    using _pause = vm.pause()
    const found = [...processes(vm, profileOf(facts))]
    const names = found.map(({ name }) => name)
    expect(names).toEqual(
      expect.arrayContaining(['swapper/0', 'init', 'kthreadd', 'microvmi-ping', 'microvmi-pong', 'microvmi-marks']),
    )
    const known = found.find(({ name }) => name === 'microvmi-known')
    expect(known?.pid).toBe(facts.known.pid)

    const registers = vm.readRegisters(0)
    const kernel = new AddressSpace(vm, pagingOf(registers))
    expect(kernel.paging.mode).toBe(cpu === 'max' ? '5-level' : '4-level')
    const root = kernel.translate(known?.pageTables ?? 0n)?.physicalAddress ?? 0
    const space = new AddressSpace(vm, { ...kernel.paging, root })
    for (const [index, physical] of facts.known.physical.entries()) {
      const address = facts.known.virtual + BigInt(index * 4096)
      expect(space.translate(address)).toMatchObject({
        physicalAddress: physical,
        user: true,
        writable: true,
        executable: false,
      })
      const page = new Uint8Array(4096)
      space.read(address, page)
      expect(page).toEqual(knownPage(index))
      const back = [...mappings(vm, space.paging, { showing: physical })].map(({ virtualAddress }) => virtualAddress)
      expect(back).toContain(address)
    }
  },
)
