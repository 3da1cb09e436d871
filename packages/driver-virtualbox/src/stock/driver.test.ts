import { open, supports } from '@microvmi/core'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { virtualbox } from './driver.ts'
import { ToldVBoxManage, type ToldVm } from './vboxmanage-program.testing.ts'

const code = (expected: string, message: unknown = expect.any(String)) =>
  expect.objectContaining({ code: expected, message })
const uuid = (digit: number) => `${String(digit).repeat(8)}-a858-4e6a-a256-87672488f787`
const NAMES = ['a b', `"quoted" 'too'`, '../..', 'ünïcode 🐧', '$(touch /tmp/x); `id`', '-rf', 'x" {y}']

let program: ToldVBoxManage
const told = (...vms: ToldVm[]) => {
  program[Symbol.dispose]()
  program = new ToldVBoxManage(vms)
  return { vboxmanage: program.path }
}
beforeEach(() => {
  program = new ToldVBoxManage([])
})
afterEach(() => program[Symbol.dispose]())

test('names with spaces, quotes, slashes and unicode are found, and so are UUIDs in either case', async () => {
  const options = told(...NAMES.map((name, index) => ({ name, uuid: uuid(index) })))
  for (const [index, name] of NAMES.entries()) {
    for (const vm of [name, uuid(index), uuid(index).toUpperCase()]) {
      const opened = await open(virtualbox, { vm, ...options })
      expect(opened).toMatchObject({ name, id: uuid(index) })
      await opened.close()
    }
  }
})

test('what cannot be opened is told apart', async () => {
  const options = told(
    { name: 'twice', uuid: uuid(1) },
    { name: 'twice', uuid: uuid(2) },
    { name: 'off', uuid: uuid(3), state: 'poweroff' },
    { name: 'on', uuid: uuid(4) },
  )
  const opening = (vm: string, more: object = {}) => open(virtualbox, { vm, ...options, ...more })
  await expect(opening('twice')).rejects.toEqual(code('VM_AMBIGUOUS', expect.stringContaining(uuid(2))))
  await expect(opening('off')).rejects.toEqual(code('VM_NOT_FOUND', expect.stringContaining('startvm')))
  await expect(opening('nobody')).rejects.toEqual(code('VM_NOT_FOUND', expect.stringContaining(`'on'`)))
  await expect(opening('x'.repeat(9999))).rejects.toEqual(code('VM_NOT_FOUND', expect.not.stringMatching(/x{101}/)))
  await expect(opening('on', { vboxmanage: '/nowhere/VBoxManage' })).rejects.toEqual(code('DRIVER_UNAVAILABLE'))
  for (const address of ['', 'localhost:1', '127.0.0.1', '127.0.0.1:0', '127.0.0.1:65536', '::1:5', '1.2.3.4:5 ']) {
    await expect(opening('on', { console: address })).rejects.toEqual(code('BAD_ARGUMENT'))
    await expect(opening('on', { gdb: address })).rejects.toEqual(code('BAD_ARGUMENT'))
  }
})

test('without a debugger there are registers and no memory, and the reason is what to do', async () => {
  const options = told({ name: 'on', uuid: uuid(1) })
  const vm = await open(virtualbox, { vm: 'on', ...options })
  expect([...vm.capabilities].sort()).toEqual(['memory.regions', 'msr.read', 'pause', 'registers.read'])
  expect(vm.readRegisters(0)).toMatchObject({ rax: 0n, r15: 21n })
  expect(vm.readRegisters(0).xcr0).toBeUndefined()
  expect(supports(vm, 'memory.read')).toBe(false)
  await vm.close()
  const required = open(virtualbox, { vm: 'on', ...options, require: ['memory.read'] })
  await expect(required).rejects.toEqual(
    code('UNSUPPORTED', expect.stringContaining(`VBoxManage modifyvm ${uuid(1)} --guest-debug-provider native`)),
  )
})

test.each([
  ['<GuestDebug provider="KD" io="TCP" address="127.0.0.1" port="1"/>', 'KD protocol'],
  ['<GuestDebug provider="None" io="TCP" address="127.0.0.1" port="1"/>', 'nothing listens at 127.0.0.1:1'],
  ['<GuestDebug provider="GDB" io="TCP" address="127.0.0.1" port="1"/>', 'nothing listens at 127.0.0.1:1'],
  ['<GuestDebug provider="GDB" io="UDP" address="127.0.0.1" port="1"/>', 'switch it on'],
])('%s is no console: %s', async (guestDebug, reason) => {
  const options = told({ name: 'on', uuid: uuid(1), guestDebug })
  await expect(open(virtualbox, { vm: 'on', ...options, require: ['memory.read'] })).rejects.toEqual(
    code('UNSUPPORTED', expect.stringContaining(reason)),
  )
})

test('an address that the user gives has to be right', async () => {
  const options = told({ name: 'on', uuid: uuid(1) })
  await expect(open(virtualbox, { vm: 'on', ...options, console: '127.0.0.1:1' })).rejects.toEqual(code('VM_NOT_FOUND'))
  await expect(open(virtualbox, { vm: 'on', ...options, gdb: '[::1]:1' })).rejects.toEqual(code('VM_NOT_FOUND'))
})
