import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findVBoxManage, vboxmanagePlaces } from './vboxmanage-path.ts'

test('Windows: where the installer says, the search path, Program Files', () => {
  const env = {
    VBOX_MSI_INSTALL_PATH: 'D:\\Virtual Box\\',
    Path: 'C:\\Windows;"C:\\a b";.;;relative',
    ProgramFiles: 'C:\\Programme',
    ProgramW6432: 'C:\\Programme',
  }
  expect(vboxmanagePlaces({ platform: 'win32', env })).toEqual([
    'D:\\Virtual Box\\VBoxManage.exe',
    'C:\\Windows\\VBoxManage.exe',
    'C:\\a b\\VBoxManage.exe',
    'C:\\Programme\\Oracle\\VirtualBox\\VBoxManage.exe',
    'C:\\Program Files\\Oracle\\VirtualBox\\VBoxManage.exe',
  ])
})

test('macOS: the search path, and the application', () => {
  const places = vboxmanagePlaces({ platform: 'darwin', env: { PATH: '/bin:.:' } })
  expect(places.slice(0, 2)).toEqual(['/bin/VBoxManage', '/Applications/VirtualBox.app/Contents/MacOS/VBoxManage'])
})

test('Linux: the search path, the packages, the installer', () => {
  const places = vboxmanagePlaces({ platform: 'linux', env: { PATH: '/home/me/bin:./bin:/usr/bin' } })
  expect(places.slice(0, 3)).toEqual([
    '/home/me/bin/VBoxManage',
    '/usr/bin/VBoxManage',
    '/usr/lib/virtualbox/VBoxManage',
  ])
  expect(places).toContain('/opt/VirtualBox/VBoxManage')
})

test('the option is taken as it is; the first that is there is found; nothing is DRIVER_UNAVAILABLE', () => {
  expect(findVBoxManage('/opt/VBoxManage')).toBe('/opt/VBoxManage')
  const directory = mkdtempSync(join(tmpdir(), 'microvmi test ü-'))
  try {
    writeFileSync(join(directory, 'VBoxManage'), '')
    const found = findVBoxManage(undefined, { platform: 'linux', env: { PATH: `/nowhere:${directory}` } })
    expect(found).toBe(join(directory, 'VBoxManage'))
  } finally {
    rmSync(directory, { recursive: true })
  }
  expect(() => findVBoxManage(undefined, { platform: 'win32', env: {} })).toThrow(
    expect.objectContaining({ code: 'DRIVER_UNAVAILABLE' }),
  )
})
