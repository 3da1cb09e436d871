import { open } from '@microvmi/core'
import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { createGuest, mock } from './index.ts'

// Busy machines take their time.
vi.setConfig({ testTimeout: 30_000 })

test('whatever a process executes, the guest or the process suffers, and nobody else', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 64, maxLength: 4096 }), fc.nat(), async (bytes, seed) => {
      using guest = createGuest({ name: 'hostile', seed, vcpus: 1, memory: 2 ** 22 })
      const { mappings } = guest.process('counter')
      guest.write(guest.translate({ mappings }, 0x40_0000n) ?? 0, bytes)
      const vm = await open(mock, { vm: 'hostile' })
      vm.intercept([{ kind: 'int3' }, { kind: 'interrupt' }, { kind: 'cr', register: 'cr3' }], () => {})
      guest.runNow(8000)
      expect(guest.process('walker').rounds).toBeGreaterThan(0n)
      await vm.close()
    }),
    { numRuns: 30 },
  )
})

test('whatever the kernel executes, the guest ends or goes on', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 512, maxLength: 512 }),
      fc.nat(),
      fc.constantFrom('singlestep', 'interrupt', 'int3'),
      async (bytes, seed, kind) => {
        using guest = createGuest({ name: 'hostile', seed, vcpus: 1, memory: 2 ** 22 })
        guest.write(guest.translate(guest.kernel, 0xffff_ffff_8100_0000n) ?? 0, bytes)
        const vm = await open(mock, { vm: 'hostile' })
        let events = 0
        vm.intercept({ kind }, () => {
          events += 1
        })
        guest.runNow(5000)
        const { clock } = guest.vcpu(0)
        expect(vm.runState() === 'paused' || clock === 5000).toBe(true)
        expect(events).toBeLessThanOrEqual(10_000)
        await vm.close()
      },
    ),
    { numRuns: 60 },
  )
})

test('whatever is in the page tables, the guest ends or goes on', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), fc.boolean(), (bytes, kernel) => {
      using guest = createGuest({ name: 'hostile', vcpus: 1, memory: 2 ** 22 })
      guest.runNow(2000)
      const { cr3 } = guest.process('counter')
      guest.write(Number(cr3) + (kernel ? 2048 : 0), bytes.subarray(0, 2048))
      guest.runNow(5000)
      expect(guest.vcpu(0).clock).toBeGreaterThanOrEqual(2000)
    }),
    { numRuns: 30 },
  )
})
