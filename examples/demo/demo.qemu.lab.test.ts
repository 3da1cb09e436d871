import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { prepared, startQemu } from '@microvmi/lab-qemu'
import { expect, test } from 'vitest'

test("the demo on a real guest: its dump is what QEMU's own command saves", async (context) => {
  await prepared(context, async () => (await startQemu({ paused: true })).stop())
  const args = ['--import', 'tsx', 'qemu.ts']
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: import.meta.dirname })
  expect(stdout).toMatch(/vcpu 1 {2}rip [0-9a-f]{16}/)
  expect(stdout).toMatch(/: microvmi-known/)
  expect(stdout).toMatch(/They are the same/)
  expect(stdout).toMatch(/running again/)
})
