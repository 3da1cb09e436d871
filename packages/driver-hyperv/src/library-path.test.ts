import { expect, test } from 'vitest'
import { libraryPath, type Places, systemLibraryPath } from './library-path.ts'

function placesOf(files: readonly string[], path = ''): Places {
  const known = new Set(files.map((file) => file.toLowerCase()))
  return {
    environment: { SystemRoot: 'C:\\Windows', PATH: path },
    programs: ['C:\\app\\main.js', undefined],
    isFile: (file) => known.has(file.toLowerCase()),
  }
}

test('a given path is a file or its directory', () => {
  const at = placesOf(['D:\\kit\\hvlib.dll'])
  expect(libraryPath('hvlib.dll', 'D:\\kit', at)).toBe('D:\\kit\\hvlib.dll')
  expect(libraryPath('hvlib.dll', 'D:\\kit\\hvlib.dll', at)).toBe('D:\\kit\\hvlib.dll')
  expect(() => libraryPath('hvlib.dll', 'D:\\other', at)).toThrow(/no hvlib.dll at D:\\other: check the path/)
})

test('else beside the app, then in PATH, never in a relative directory', () => {
  expect(libraryPath('hvlib.dll', undefined, placesOf(['C:\\app\\hvlib.dll', 'D:\\kit\\hvlib.dll'], 'D:\\kit'))).toBe(
    'C:\\app\\hvlib.dll',
  )
  expect(libraryPath('hvlib.dll', undefined, placesOf(['D:\\k t\\hvlib.dll'], 'C:\\x;;"D:\\k t"'))).toBe(
    'D:\\k t\\hvlib.dll',
  )
  expect(libraryPath('hvlib.dll', undefined, placesOf(['hvlib.dll', '.\\hvlib.dll'], '.;'))).toBeUndefined()
})

test("Windows' own library comes first, but for a path that is given", () => {
  const at = placesOf(['C:\\Windows\\System32\\vid.dll', 'C:\\app\\vid.dll'])
  expect(systemLibraryPath('vid.dll', undefined, at)).toBe('C:\\Windows\\System32\\vid.dll')
  expect(systemLibraryPath('vid.dll', 'C:\\app', at)).toBe('C:\\app\\vid.dll')
  expect(systemLibraryPath('vid.dll', undefined, placesOf(['C:\\app\\vid.dll']))).toBe('C:\\app\\vid.dll')
})
