import { describe, expect, test } from 'vitest'
import { at, LAYOUTS } from './abi/layouts.testing.ts'
import { abiOf } from './abi/versions.ts'
import { parseDomainInfo } from './domain-info.ts'

describe.each(LAYOUTS)('what Xen 4.%i tells of a domain', (minor, layout) => {
  const abi = abiOf({ major: 4, minor, extra: '' })
  const where = (member: string) => at(layout, 'getdomaininfo', member)
  const constant = (name: string) => at(layout, 'constants', name)
  const record = (flags: number, emulation: number) => {
    const bytes = new Uint8Array(where('size'))
    const view = new DataView(bytes.buffer)
    view.setUint16(where('domain'), 7, true)
    view.setUint32(where('flags'), flags, true)
    view.setBigUint64(where('tot_pages'), 32_768n, true)
    view.setUint32(where('max_vcpu_id'), 3, true)
    for (let index = 0; index < 16; index++) bytes[where('handle') + index] = 0x10 + index
    view.setUint32(where('emulation_flags'), emulation, true)
    return parseDomainInfo(bytes, abi)
  }

  test('numbers, identifier and type', () => {
    const hvm = constant('XEN_DOMINF_hvm_guest')
    const known = { domid: 7, uuid: '10111213-1415-1617-1819-1a1b1c1d1e1f', pages: 32_768, vcpus: 4 }
    expect(record(0, 0)).toMatchObject({ ...known, isHvm: false, hasDevices: false })
    expect(record(0, constant('XEN_X86_EMU_PIT'))).toMatchObject({ isHvm: false, hasDevices: false })
    expect(record(hvm, constant('XEN_X86_EMU_LAPIC'))).toMatchObject({ isHvm: true, hasDevices: false })
    expect(record(hvm, constant('XEN_X86_EMU_PIT'))).toMatchObject({ isHvm: true, hasDevices: true })
  })

  test('its state, flag by flag', () => {
    const none = { isPaused: false, isShutDown: false, isDying: false }
    expect(record(0, 0)).toMatchObject(none)
    expect(record(constant('XEN_DOMINF_paused'), 0)).toMatchObject({ ...none, isPaused: true })
    expect(record(constant('XEN_DOMINF_shutdown'), 0)).toMatchObject({ ...none, isShutDown: true })
    expect(record(constant('XEN_DOMINF_dying'), 0)).toMatchObject({ ...none, isDying: true })
  })
})
