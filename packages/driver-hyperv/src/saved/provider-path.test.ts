import { expect, test } from 'vitest'
import type { Places } from '../library-path.ts'
import { providerPath } from './provider-path.ts'

const SDK = 'C:\\Program Files (x86)\\Windows Kits\\10\\bin'
const NAME = 'VmSavedStateDumpProvider.dll'

function placesOf(...files: string[]): Places {
  return {
    environment: { 'ProgramFiles(x86)': 'C:\\Program Files (x86)', ProgramFiles: 'C:\\Program Files', PATH: '' },
    programs: ['C:\\app\\main.js'],
    isFile: (file) => files.includes(file),
  }
}

test('the newest SDK that has it, versions compared by number', () => {
  const names = ['10.0.9600.0', '10.0.22621.0', '10.0.22621.1', 'x64', '10.0.17763.0']
  const at = placesOf(...names.map((name) => `${SDK}\\${name}\\x64\\${NAME}`))
  const namesIn = (directory: string) => (directory === SDK ? names : [])
  expect(providerPath(undefined, at, namesIn)).toBe(`${SDK}\\10.0.22621.1\\x64\\${NAME}`)
  const older = placesOf(`${SDK}\\10.0.17763.0\\x64\\${NAME}`)
  expect(providerPath(undefined, older, namesIn)).toBe(`${SDK}\\10.0.17763.0\\x64\\${NAME}`)
})

test('beside the app before the SDK, a path that is given before both', () => {
  const at = placesOf(`${SDK}\\10.0.22621.0\\x64\\${NAME}`, `C:\\app\\${NAME}`, `D:\\lib\\${NAME}`)
  const namesIn = () => ['10.0.22621.0']
  expect(providerPath(undefined, at, namesIn)).toBe(`C:\\app\\${NAME}`)
  expect(providerPath('D:\\lib', at, namesIn)).toBe(`D:\\lib\\${NAME}`)
})

test('where it is nowhere, the message says where to get it', () => {
  expect(() => providerPath(undefined, placesOf(), () => [])).toThrow(/install the Windows SDK/)
  expect(() => providerPath(undefined, placesOf())).toThrow(expect.objectContaining({ code: 'DRIVER_UNAVAILABLE' }))
})
