import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { modules } from './modules.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
})
afterEach(() => rmSync(root, { recursive: true }))

/** A file with what the loader reads of a module: its section .modinfo. */
function module(path: string, depends: string): void {
  const file = join(root, 'lib/modules/6.1.0/kernel', path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `ELF\0license=GPL\0depends=${depends}\0retpoline=Y\0`)
}

const names = (...wanted: string[]) => modules(root, wanted).map(({ name }) => name)

test('what a module needs comes before it, each once', () => {
  module('drivers/virtio/virtio.ko', '')
  module('drivers/virtio/virtio_ring.ko', 'virtio')
  module('drivers/virtio/virtio_pci.ko', 'virtio_ring,virtio')
  module('drivers/block/virtio_blk.ko', 'virtio_ring,virtio')
  expect(names('virtio_pci', 'virtio_blk')).toEqual(['virtio', 'virtio_ring', 'virtio_pci', 'virtio_blk'])
})

test('a hyphen and an underscore are the same', () => {
  module('drivers/xen/xen-privcmd.ko', '')
  module('drivers/xen/xenfs/xenfs.ko', 'xen_privcmd')
  expect(names('xenfs', 'xen-privcmd')).toEqual(['xen_privcmd', 'xenfs'])
})

test('one that is not there', () => {
  module('drivers/xen/xenfs/xenfs.ko', 'xen-privcmd')
  expect(() => names('xenfs')).toThrow('has no module xen_privcmd')
})
