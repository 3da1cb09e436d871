import { existsSync } from 'node:fs'
import { monitor, startQemu } from '@microvmi/lab-qemu'
import { expect, test } from 'vitest'
import { GdbClient, RIP, registerIn } from './src/gdb-client.ts'

test('a guest runs on KVM, breakpoints of both kinds are hit in it, and it leaves nothing behind', async () => {
  const lab = await startQemu({ memoryMiB: 128, machine: 'pc', gdb: true })
  try {
    expect(await monitor(lab.ownQmp, 'query-kvm')).toEqual({ enabled: true, present: true })
    const { marks, symbols } = await lab.ready()
    const before = lab.tick()?.switches ?? 0
    await expect.poll(() => lab.tick()?.switches, { timeout: 10_000 }).toBeGreaterThan(before)
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
  expect(existsSync(lab.directory)).toBe(false)
})
