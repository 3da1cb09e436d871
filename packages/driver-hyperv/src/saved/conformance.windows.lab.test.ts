import { dirname } from 'node:path'
import { register } from '@microvmi/conformance'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { hypervSaved } from './driver.ts'
import { bytesAt, provider, registersOf, SavedStates } from './saved-state.testing.ts'

describe.each([
  { build: 'current', name: 'web.vmrs' },
  { build: '17763', name: 'web.bin' },
] as const)('$build SDK, $name', ({ build, name }) => {
  let states: SavedStates
  let vm: string
  const { PATH } = process.env
  beforeAll(() => {
    // For `probe`, which takes no options.
    process.env.PATH = `${dirname(provider(build))};${PATH}`
    states = new SavedStates()
    states.text('web.vsv', '')
    vm = states.file(name)
  })
  afterAll(() => {
    process.env.PATH = PATH
    states.end()
  })

  register(
    {
      driver: hypervSaved,
      slowness: 4,
      guest: () => ({
        vm,
        options: { provider: provider(build) },
        listed: false,
        still: true,
        sessions: 'several',
        vcpuCount: 2,
        memory: {
          known: [
            { address: 0x10_0ffe, bytes: bytesAt(0x10_0ffe, 3 * 4096) },
            { address: 0x1_0000_1000, bytes: bytesAt(0x1_0000_1000, 4096) },
          ],
          end: 0x1_0080_0000,
          hole: { start: 0xa_0000, length: 0x6_0000 },
        },
        registers: {
          absent: ['xcr0', 'lstar', 'star', 'kernelGsBase', 'tsc', 'pat', 'apicBase', 'sysenterEip'],
          known: (vcpu) => registersOf(build, vcpu),
        },
      }),
    },
    { describe, test, after: afterAll },
  )
})
