import { expect, test } from 'vitest'
import { sourcePackages } from './source-package.ts'

const sum = (digit: string) => digit.repeat(64)
const paragraph = (name: string, version: string) => `Package: ${name}
Version: ${version}
Format: 3.0 (quilt)
Files:
 ${'a'.repeat(32)} 100 ${name}_${version}.dsc
 ${'b'.repeat(32)} 200 ${name}_1.orig.tar.xz
 ${'c'.repeat(32)} 300 ${name}_${version}.debian.tar.xz
Checksums-Sha256:
 ${sum('a')} 100 ${name}_${version}.dsc
 ${sum('b')} 200 ${name}_1.orig.tar.xz
 ${sum('c')} 300 ${name}_${version}.debian.tar.xz
Directory: pool/main/x
`

test('of the versions in an index, the one that was fetched', () => {
  const index = [paragraph('bochs', '1-1'), paragraph('bochs', '1-2'), paragraph('other', '1-2')].join('\n')
  const files = ['bochs_1.orig.tar.xz', 'bochs_1-2.debian.tar.xz', 'something']
  const [found, ...more] = sourcePackages(index, files)
  expect(more).toEqual([])
  expect(found?.name).toBe('bochs')
  expect(found?.control).toMatch(/^Source: bochs\nVersion: 1-2\n/)
  expect(found?.control).not.toContain('.dsc')
  expect(found?.control).toContain(` ${sum('c')} 300 bochs_1-2.debian.tar.xz\n`)
  expect(sourcePackages(index, [])).toEqual([])
  expect(sourcePackages('', files)).toEqual([])
})
