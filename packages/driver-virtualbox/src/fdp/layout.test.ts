import { describe, expect, test } from 'vitest'
import { ACCESS, BREAKPOINT, CHANNEL, COMMAND, NATURAL, PACKED, type RequestLayout } from './layout.ts'
import { FdpRequests } from './requests.ts'

test('the channel is laid out as FDP_SHM_SHARED is', () => {
  expect(CHANNEL).toEqual({
    length: 20_971_540,
    lock: 0,
    stateChanged: 2,
    toServer: { data: 4, size: 10_485_764, lock: 10_485_768, present: 10_485_769, status: 10_485_770 },
    toClient: { data: 10_485_772, size: 20_971_532, lock: 20_971_536, present: 20_971_537, status: 20_971_538 },
  })
})

const address = 0xf_1234_5678_9abc
const value = 0xfedc_ba98_7654_3210n

/** Each request as a compiler lays out its struct: naturally aligned for Linux, packed for Windows. */
const EXPECTED: readonly [what: string, make: (of: FdpRequests) => Uint8Array, natural: string, packed: string][] = [
  ['a command alone', (of) => of.simple(COMMAND.memorySize), '06', '06'],
  ['a command of a vCPU', (of) => of.ofVcpu(COMMAND.singleStep, 3), '15000000 03000000', '15 03000000'],
  [
    'READ_PHYSICAL',
    (of) => of.readPhysical(address, 4096),
    '02000000 00000000 bc9a785634120f00 00100000 00000000',
    '02 00000000 bc9a785634120f00 00100000',
  ],
  [
    'WRITE_PHYSICAL',
    (of) => of.writePhysical(address, 5),
    '0e000000 00000000 bc9a785634120f00 05000000 00000000',
    '0e bc9a785634120f00 05000000',
  ],
  ['READ_REGISTER', (of) => of.readRegister(1, 43), '03000000 01000000 2b000000', '03 01000000 2b00'],
  [
    'WRITE_REGISTER',
    (of) => of.writeRegister(1, 43, value),
    '12000000 01000000 2b00000000000000 1032547698badcfe',
    '12 01000000 2b00 1032547698badcfe',
  ],
  [
    'READ_MSR',
    (of) => of.readMsr(2, 0xc000_0082),
    '04000000 02000000 820000c000000000',
    '04 02000000 820000c000000000',
  ],
  [
    'WRITE_MSR',
    (of) => of.writeMsr(2, 0xc000_0082, value),
    '05000000 02000000 820000c000000000 1032547698badcfe',
    '05 02000000 820000c000000000 1032547698badcfe',
  ],
  [
    'VIRTUAL_PHYSICAL',
    (of) => of.virtualToPhysical(1, value),
    '0d000000 01000000 1032547698badcfe',
    '0d 01000000 1032547698badcfe',
  ],
  ['UNSET_BP', (of) => of.unsetBreakpoint(-2), '0b000000 feffffff', '0b feffffff'],
  [
    'SET_BP',
    (of) =>
      of.setBreakpoint({ vcpu: 1, type: BREAKPOINT.page, access: ACCESS.write, isPhysical: true, address, size: 4096 }),
    '0c000000 01000000 0300 0000 ffffffff 0200 0200 00000000 bc9a785634120f00 0010000000000000 0000000000000000',
    '0c 01000000 0300 ffffffff 0200 0200 bc9a785634120f00 0010000000000000 0000000000000000',
  ],
]

describe.each(EXPECTED)('%s', (_, make, natural, packed) => {
  test.each([
    ['naturally aligned', NATURAL, natural],
    ['packed', PACKED, packed],
  ] satisfies [string, RequestLayout, string][])('%s', (_how, layout, expected) => {
    const requests = new FdpRequests(layout)
    // What a longer request before has left in the buffer does not show.
    requests.setBreakpoint({ vcpu: -1, type: 5, access: 7, isPhysical: false, address, size: address })
    expect(Buffer.from(make(requests)).toString('hex')).toBe(expected.replaceAll(' ', ''))
  })
})

test('data of a write begin where the struct has them', () => {
  expect(new FdpRequests(NATURAL).writeDataOffset).toBe(20)
  expect(new FdpRequests(PACKED).writeDataOffset).toBe(13)
})
