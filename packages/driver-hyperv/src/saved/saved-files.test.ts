import fc from 'fast-check'
import { expect, test } from 'vitest'
import { checkName, filesOfPath, filesOfVm, shortened } from './saved-files.ts'

test('a path names one .vmrs, or both of a .bin and a .vsv', () => {
  expect(filesOfPath('C:\\vms\\web.VMRS')).toEqual({ vmrs: 'C:\\vms\\web.VMRS' })
  expect(filesOfPath('C:\\vms\\web.bin')).toEqual({ bin: 'C:\\vms\\web.bin', vsv: 'C:\\vms\\web.vsv' })
  expect(filesOfPath('C:\\vms\\web.Vsv')).toEqual({ bin: 'C:\\vms\\web.bin', vsv: 'C:\\vms\\web.vsv' })
})

test('what ends otherwise is a name', () => {
  for (const name of ['Windows 11', 'web.bin.old', '北京 "1" / ? # %', '.vmrs']) {
    expect(filesOfPath(name)).toBeUndefined()
  }
})

test('of what was found, the .vmrs, or a whole pair', () => {
  expect(filesOfVm('a', { bin: 'x', vsv: 'y', vmrs: 'z' })).toEqual({ vmrs: 'z' })
  expect(filesOfVm('a', { bin: 'x', vsv: 'y', vmrs: '' })).toEqual({ bin: 'x', vsv: 'y' })
  for (const found of [
    { bin: '', vsv: '', vmrs: '' },
    { bin: 'x', vsv: '', vmrs: '' },
  ]) {
    expect(() => filesOfVm('a', found)).toThrow(/'a' has no saved state: save the VM/)
  }
})

test('every name is taken, refused as bad, or found to be nobody’s', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (name) => {
      try {
        checkName(name)
        expect(name).not.toContain('\0')
      } catch (error) {
        expect(error).toMatchObject({ code: name.includes('\0') ? 'BAD_ARGUMENT' : 'VM_NOT_FOUND' })
      }
      expect([...shortened(name)].length).toBeLessThanOrEqual(81)
    }),
  )
  expect(() => checkName('x'.repeat(40_000))).toThrow(/x{80}…'/)
})
