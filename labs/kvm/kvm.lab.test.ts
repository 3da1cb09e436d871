import { existsSync } from 'node:fs'
import { knownPage, monitor, startQemu } from '@microvmi/lab-qemu'
import { expect, test } from 'vitest'
import { GdbClient, RIP, registerIn } from './src/gdb-client.ts'

test('a guest runs on KVM, holds what it says, and leaves nothing behind', async () => {
  const lab = await startQemu({ memoryMiB: 128 })
  try {
    expect(await monitor(lab.ownQmp, 'query-kvm')).toEqual({ enabled: true, present: true })
    const { known, symbols } = await lab.ready()
    expect(known.physical).toHaveLength(16)
    expect(symbols.entry_SYSCALL_64).toBeGreaterThan(0xffff_8000_0000_0000n)
    expect(knownPage(0)).toHaveLength(4096)
    const before = lab.tick()?.switches ?? 0
    await expect.poll(() => lab.tick()?.switches, { timeout: 10_000 }).toBeGreaterThan(before)
  } finally {
    await lab.stop()
  }
  expect(existsSync(lab.directory)).toBe(false)
})

test('hardware and software breakpoints of the gdbstub are hit', async () => {
  const lab = await startQemu({ memoryMiB: 128, gdb: true })
  try {
    const { marks, symbols } = await lab.ready()
    const gdb = await GdbClient.connect(lab.gdb ?? '')
    await gdb.next(1000)
    for (const [kind, address] of [
      [1, marks.landmark],
      [0, symbols.entry_SYSCALL_64 ?? 0n],
    ] as const) {
      expect(await gdb.ask(`Z${kind},${address.toString(16)},1`)).toBe('OK')
      expect(await gdb.ask('vCont;c')).toMatch(/^T05thread:/)
      expect(registerIn((await gdb.ask('g')) ?? '', RIP)).toBe(address)
      expect(await gdb.ask(`z${kind},${address.toString(16)},1`)).toBe('OK')
    }
    gdb.close()
  } finally {
    await lab.stop()
  }
})
