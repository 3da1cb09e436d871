import { open } from '@microvmi/core'
import { monitor, prepared, startQemu } from '@microvmi/lab-qemu'
import { AddressSpace } from '@microvmi/paging'
import { expect, test } from 'vitest'
import { kvm } from './index.ts'

/** The beginning of the kernel's direct map of all physical memory, with four levels and without randomisation. */
const DIRECT_MAP = 0xffff_8880_0000_0000n

test("translation agrees with QEMU's own, mapped or not", async (context) => {
  await using lab = await prepared(context, () => startQemu())
  const { symbols } = await lab.ready()
  await using vm = await open(kvm, { vm: lab.qmp })
  using _pause = vm.pause()
  const space = AddressSpace.of(vm, 0)
  const text = symbols._text ?? 0n
  const addresses = [0n, 0x40_0000n, text, text + 0x12_3456n, symbols.init_task ?? 0n, DIRECT_MAP, 0x8000_0000_0000n]
  for (let index = 0n; index < 60n; index++) addresses.push(text + index * 0x7_1003n, DIRECT_MAP + index * 0x91_2345n)
  let mapped = 0
  for (const address of addresses) {
    const command = `gva2gpa 0x${address.toString(16)}`
    const answer = String(await monitor(lab.ownQmp, 'human-monitor-command', { 'command-line': command }))
    const theirs = /^gpa: (\S+)/.exec(answer)?.[1]
    if (theirs !== undefined) mapped += 1
    expect(space.translate(address)?.physicalAddress).toBe(theirs === undefined ? undefined : Number(theirs))
  }
  expect(mapped).toBeGreaterThan(60)
  expect(mapped).toBeLessThan(addresses.length)
})
