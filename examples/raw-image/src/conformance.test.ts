import { mkdirSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { type Fixture, type Guest, register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { imageDirectory, mebibyte, pattern } from './image.testing.ts'
import { rawImage } from './index.ts'

const directory = imageDirectory()
const home = process.cwd()

// The suite opens '../../etc/passwd' as a VM that is not there. For a driver whose names are paths it may well be:
// so from here, where it is not.
const deep = join(directory.path, 'deep', 'er')
mkdirSync(deep, { recursive: true })
process.chdir(deep)

afterAll(() => {
  process.chdir(home)
  directory.remove()
})

function fixture(options: { readonly writable?: boolean }): Fixture {
  let count = 0
  return {
    driver: rawImage,
    guest(): Guest {
      // A file of its own for every case, so that nothing that one writes reaches another.
      const vm = directory.make(`${options.writable ? 'w' : 'r'}${count++}.raw`, pattern(0, 3 * mebibyte))
      return {
        vm,
        options: { ...options, regions: '0+0xa0000,0x100000+0x100000' },
        listed: false,
        sessions: 'several',
        vcpuCount: 1,
        still: true,
        memory: {
          known: [
            { address: 0, bytes: pattern(0, 4096) },
            { address: 0x10_0f00, bytes: pattern(0x10_0f00, 8192) },
          ],
          end: 0x20_0000,
          hole: { start: 0xa_0000, length: 0x6_0000 },
          scratch: { address: 0x18_0000, length: 0x4000 },
        },
        vanish: () => truncateSync(vm, 0),
      }
    },
  }
}

for (const writable of [false, true]) {
  describe(writable ? 'writable' : 'read-only', () => {
    register(fixture({ writable }), { describe, test, after: afterAll })
  })
}
