import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, type TestContext, test } from 'vitest'
import { LabUnavailable, type PackageSet, unpacked } from './src/index.ts'

/** Where packages cannot be had, the test is skipped with the reason, or fails with it when labs are required. */
async function prepared(context: TestContext, set: PackageSet): Promise<string> {
  try {
    return await unpacked(set)
  } catch (error) {
    if (!(error instanceof LabUnavailable) || process.env.MICROVMI_LABS === 'required') throw error
    return context.skip(error.message)
  }
}

test('packages and source packages of a release that the host does not run', async (context) => {
  const set: PackageSet = { packages: ['bochsbios'], sources: ['bochs'], suite: 'trixie' }
  const root = await prepared(context, set)
  expect(existsSync(join(root, 'usr/share/bochs/BIOS-bochs-latest'))).toBe(true)
  const source = join(root, 'usr/src/bochs')
  expect(existsSync(join(source, 'configure'))).toBe(true)
  // The list of the patches that dpkg-source has applied.
  expect(readFileSync(join(source, '.pc/applied-patches'), 'utf8')).not.toBe('')
  expect(readdirSync(root)).not.toContain('.archives')
  expect(await unpacked(set)).toBe(root)
})

test('what the preferred release lacks comes from the next one', async (context) => {
  const root = await prepared(context, { alone: ['bochsbios'], suite: ['bookworm-backports', 'bookworm'] })
  expect(existsSync(join(root, 'usr/share/bochs/BIOS-bochs-latest'))).toBe(true)
})
