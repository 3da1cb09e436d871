import fc from 'fast-check'
import { expect, test } from 'vitest'
import { addressOption, addressText } from './debugger-address.ts'
import { debuggerIn } from './settings-file.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const address = fc.record({ host: fc.oneof(fc.ipV4(), fc.ipV6()), port: fc.integer({ min: 1, max: 65_535 }) })

test('what is written as an address is read as it', () => {
  fc.assert(
    fc.property(address, (one) => {
      expect(addressOption('console', addressText(one))).toEqual(one)
    }),
  )
  expect(addressOption('gdb', 'none')).toBe('none')
  expect(addressOption('gdb', undefined)).toBeUndefined()
})

test('what is none is BAD_ARGUMENT', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.:[\]]{0,12}$/)), (text) => {
      try {
        const found = addressOption('console', text)
        if (found !== 'none' && found !== undefined) expect(addressOption('console', addressText(found))).toEqual(found)
      } catch (error) {
        expect(error).toEqual(code('BAD_ARGUMENT'))
      }
    }),
  )
})

test('an address of the settings is one that can be reached, and nothing else crashes', () => {
  fc.assert(
    fc.property(address, fc.constantFrom('GDB', 'None', 'Native', 'KD'), ({ host, port }, provider) => {
      const text = `<x><GuestDebug provider="${provider}" io="TCP" address="${host}" port="${port}"/></x>`
      expect(debuggerIn(text)).toMatchObject({ port })
    }),
  )
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii' }), (text) => {
      debuggerIn(text)
      debuggerIn(`<GuestDebug ${text}>`)
    }),
  )
  for (const [written, host] of [
    ['', '127.0.0.1'],
    ['0.0.0.0', '127.0.0.1'],
    ['::', '::1'],
    ['::1', '::1'],
    ['10.0.0.1', '10.0.0.1'],
    ['some.host; rm', '127.0.0.1'],
  ]) {
    expect(debuggerIn(`<GuestDebug io="TCP" address="${written}" port="5"/>`)).toEqual({
      provider: undefined,
      host,
      port: 5,
    })
  }
})
