import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the demo on the mock guest shows what it says', { timeout: 60_000 }, async () => {
  const args = ['--import', 'tsx', 'mock.ts']
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: import.meta.dirname })
  expect(stdout).toMatch(/through driver 'mock'/)
  expect(stdout).toMatch(/vcpu 0 {2}rip [0-9a-f]{16}/)
  expect(stdout).toMatch(/SHA-256 [0-9a-f]{64}/)
  expect(stdout).toMatch(/It is running again/)
  expect(stdout.match(/cr3 0x[0-9a-f]+ -> 0x[0-9a-f]+/g)).toHaveLength(12)
})
