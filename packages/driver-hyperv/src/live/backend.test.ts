import { expect, test } from 'vitest'
import { checkFree, HypervBackend } from './backend.ts'
import { FakePartition } from './partition.testing.ts'
import { REGISTERS } from './register-names.ts'

test('each capability that core knows is there, or its lack has a reason', () => {
  const backend = new HypervBackend(new FakePartition(1), 'hvlib', '10.0.1')
  expect(backend.capabilities).not.toContain('memory.regions')
  expect(backend.lacks['memory.regions']).toBe('a fake does not tell')
  for (const kind of ['cr', 'msr', 'breakpoint', 'int3', 'watchpoint', 'memory', 'singlestep', 'cpuid'] as const) {
    expect(backend.lacks[`events.${kind}`]).toMatch(/the process that created it only/)
  }
  expect(backend.details).toMatchObject({ way: 'hvlib.dll' })
})

test('one session at a time in a process', async () => {
  const partition = new FakePartition(1)
  const backend = new HypervBackend(partition, 'vid', '10.0.1')
  expect(() => checkFree(partition)).toThrow(/is open in this process already/)
  await backend.close()
  checkFree(partition)
  expect(partition.closed).toBe(true)
})

test('a partition that cannot be used is closed', () => {
  const partition = new FakePartition(1)
  for (const registers of partition.registers) registers.delete(REGISTERS[0]?.name ?? -1)
  expect(() => new HypervBackend(partition, 'vid', '10.0.1')).toThrow(/does not give rax/)
  expect(partition.closed).toBe(true)
  checkFree(partition)
})
