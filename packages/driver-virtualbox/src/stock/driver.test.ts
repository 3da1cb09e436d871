import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from '@microvmi/core'
import { afterAll, describe, expect, test } from 'vitest'
import { virtualbox } from './driver.ts'

const directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
afterAll(() => rmSync(directory, { recursive: true }))

const code = (expected: string, message = '') =>
  expect.objectContaining({ code: expected, message: expect.stringContaining(message) })
const uuid = (digit: number) => `31e5c8dc-a858-4e6a-a256-87672488f78${digit}`

interface Told {
  readonly name?: string
  /** The debugger in the VM's settings file; none for a file that is not there. */
  readonly guestDebug?: string
  readonly info?: string
}

/** A VBoxManage that knows the VMs `name` and `twin` (two, one of them off), and one that is off. */
function vboxmanage({ name = 'debian', guestDebug, info = 'cpus=2\nmemory=64\nVMState="running"' }: Told): string {
  const place = mkdtempSync(join(directory, 'vm-'))
  const settings = join(place, 'vm.vbox')
  if (guestDebug !== undefined) writeFileSync(settings, `<VirtualBox><GuestDebug ${guestDebug}/></VirtualBox>`)
  const quoted = name.replace(/[\\"]/g, '\\$&')
  const say = (file: string, text: string) => writeFileSync(join(place, file), `${text}\n`)
  const running = `"${name}" {${uuid(0)}}\n"twin" {${uuid(1)}}`
  say('runningvms', running)
  say('vms', `${running}\n"twin" {${uuid(2)}}\n"off" {${uuid(3)}}`)
  say('info', `name="${quoted}"\nCfgFile="${settings.replace(/[\\"]/g, '\\$&')}"\n${info}`)
  const program = join(place, 'VBoxManage')
  writeFileSync(
    program,
    `#!/bin/sh\ncd '${place}'\ncase "$1" in\n--version) echo 7.2.22r175245;;\nlist) cat "$2";;\nshowvminfo) cat info;;\nesac\n`,
  )
  chmodSync(program, 0o700)
  return program
}

describe('opening', () => {
  test('is by name, whatever that is, or by UUID', async () => {
    for (const name of ['a b', `"'`, 'C:\\x\\"', '../../etc', '$(id); true', 'ünïcode 🙂', '-rf', uuid(3)]) {
      const program = vboxmanage({ name })
      for (const vm of [name, uuid(0).toUpperCase()]) {
        const opened = await open(virtualbox, { vm, vboxmanage: program })
        expect(opened).toMatchObject({ name, id: uuid(0), vcpuCount: 2 })
        expect(opened.info.hypervisor).toBe('VirtualBox 7.2.22r175245')
        await opened.close()
      }
    }
  })

  test('of what is not there, is off, or is meant twice says so', async () => {
    const program = vboxmanage({})
    const failing = (vm: string) => expect(open(virtualbox, { vm, vboxmanage: program })).rejects
    await failing('nobody').toThrow(code('VM_NOT_FOUND', 'Running: debian, twin'))
    await failing('off').toThrow(code('VM_NOT_FOUND', 'is not running: start it'))
    await failing('twin').toThrow(code('VM_AMBIGUOUS', uuid(2)))
    const missing = open(virtualbox, { vm: 'debian', vboxmanage: join(directory, 'nothing') })
    await expect(missing).rejects.toThrow(code('DRIVER_UNAVAILABLE'))
  })

  test.each([
    ['no debugger', {}, 'console=ADDRESS:PORT'],
    ['none chosen', { guestDebug: 'provider="None" io="None" port="0"' }, 'VBoxManage modifyvm "debian" --guest-debug'],
    ['a GDB stub', { guestDebug: 'provider="GDB" io="TCP" port="1"' }, "of the sort 'gdb'"],
    ['a console that was forgotten', { guestDebug: 'provider="None" io="TCP" port="1"' }, 'nothing listens'],
  ])('with %s gives what there is, and tells the command for the rest', async (_, told, reason) => {
    const program = vboxmanage(told)
    const wanting = open(virtualbox, { vm: 'debian', vboxmanage: program, require: ['memory.read'] })
    await expect(wanting).rejects.toThrow(code('UNSUPPORTED', reason))
    await expect(wanting).rejects.toThrow(code('UNSUPPORTED', '--guest-debug-provider native'))
    const vm = await open(virtualbox, { vm: 'debian', vboxmanage: program })
    expect([...vm.capabilities].sort()).toEqual(['memory.regions', 'msr.read', 'pause', 'registers.read'])
    await vm.close()
  })

  test('with a console that is no address and port is refused; with none, it is left alone', async () => {
    const program = vboxmanage({ guestDebug: 'provider="None" io="TCP" port="1"' })
    for (const console of [
      '',
      'localhost',
      '127.0.0.1',
      '127.0.0.1:0',
      '127.0.0.1:65536',
      'host:80',
      '1:2:3:4:99999999',
    ]) {
      const failing = open(virtualbox, { vm: 'debian', vboxmanage: program, console })
      await expect(failing, console).rejects.toThrow(code('BAD_ARGUMENT'))
    }
    const wanting = open(virtualbox, { vm: 'debian', vboxmanage: program, console: 'none', require: ['memory.write'] })
    await expect(wanting).rejects.toThrow(code('UNSUPPORTED', 'the option `console` is none'))
    const nobody = open(virtualbox, { vm: 'debian', vboxmanage: program, console: '[::1]:1' })
    await expect(nobody).rejects.toThrow(code('VM_NOT_FOUND', 'nothing listens'))
  })

  test('of a VM that VBoxManage describes in another way is PROTOCOL', async () => {
    for (const info of ['', 'cpus=none\nmemory=64', 'cpus=2\nmemory=-1', 'cpus=9999\nmemory=64']) {
      const failing = open(virtualbox, { vm: 'debian', vboxmanage: vboxmanage({ info }) })
      await expect(failing, info).rejects.toThrow(code('PROTOCOL', 'another version'))
    }
  })
})
