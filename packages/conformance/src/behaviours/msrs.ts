import type { Registers } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, expectThrows, hex } from '../expect.ts'

/** Registers that are also model-specific ones, by index (Intel SDM volume 4, table 2-2). */
const SHARED: readonly (readonly [keyof Registers, number])[] = [
  ['sysenterCs', 0x174],
  ['sysenterEsp', 0x175],
  ['sysenterEip', 0x176],
  ['pat', 0x277],
  ['efer', 0xc000_0080],
  ['star', 0xc000_0081],
  ['lstar', 0xc000_0082],
  ['cstar', 0xc000_0083],
  ['fmask', 0xc000_0084],
  ['kernelGsBase', 0xc000_0102],
]
/** In no processor's range of model-specific registers. */
const NOWHERE = 0x7777_7777

/** `readMsr` and `writeMsr`. */
export const msrs = behaviours('registers: model-specific', (define) => {
  define('agree with the other registers', ['msr.read', 'registers.read'], (trial) => {
    const { vm } = trial
    trial.still()
    let compared = 0
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const read = vm.readRegisters(vcpu)
      for (const [name, index] of SHARED) {
        if (read[name] === undefined) continue
        expectEqual(vm.readMsr(vcpu, index), read[name], `MSR ${hex(index)} of vcpu ${vcpu}, which is ${name},`)
        compared += 1
      }
    }
    if (compared === 0) trial.skip('the driver gives none of them among the registers')
  })

  define('one that is not given is refused', ['msr.read'], ({ vm }) => {
    expectThrows('UNSUPPORTED', `readMsr(0, ${hex(NOWHERE)})`, () => vm.readMsr(0, NOWHERE))
    expectThrows('BAD_ARGUMENT', 'readMsr() of a vCPU that is not there', () => vm.readMsr(vm.vcpuCount, 0xc000_0080))
  })

  define('what is written reads back', ['msr.read', 'msr.write', 'pause'], (trial) => {
    const { vm } = trial
    const { index, value } = trial.part(trial.guest.msr, 'Guest.msr')
    trial.still()
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const before = vm.readMsr(vcpu, index)
      expect(before !== value, `MSR ${hex(index)} has the fixture's value already: choose another`)
      trial.afterwards(() => vm.writeMsr(vcpu, index, before))
      vm.writeMsr(vcpu, index, value)
      expectEqual(vm.readMsr(vcpu, index), value, `MSR ${hex(index)} of vcpu ${vcpu}, which was written,`)
    }
  })
})
