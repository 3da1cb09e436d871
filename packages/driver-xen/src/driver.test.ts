import { expect, test } from 'vitest'
import { xen } from './index.ts'

test('where there is no Xen, probe says why, and nothing is thrown', async () => {
  const probe = await xen.probe()
  // This also runs in a dom0.
  if (probe.usable) expect(probe.details?.hypervisor).toMatch(/^Xen 4\./)
  else expect(probe.reason).toMatch(/dom0|Xen|koffi/)
})
