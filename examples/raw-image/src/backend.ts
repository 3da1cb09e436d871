import { basename } from 'node:path'
import { type BackendWith, type Capability, PAGE_SIZE } from '@microvmi/core/driver'
import { quoted } from './failures.ts'
import type { ImageFile } from './image-file.ts'
import { ImageMemory } from './image-memory.ts'
import { parseRegions } from './regions.ts'

/** The backend of an open image. It owns the file from then on. */
export function backendOf(file: ImageFile, regions: string | undefined): BackendWith<'memory.read' | 'memory.regions'> {
  const capabilities: readonly Capability[] = ['memory.read', 'memory.regions']
  const odd = file.length % PAGE_SIZE
  return {
    name: basename(file.path),
    id: file.path,
    hypervisor: 'none: a raw memory image',
    // There is none, but every VM has at least one. No capability of this driver takes its number.
    vcpuCount: 1,
    capabilities: file.writable ? [...capabilities, 'memory.write'] : capabilities,
    lacks: file.writable ? {} : { 'memory.write': 'the image was opened read-only: open it with writable: true' },
    details: { path: file.path, bytes: file.length, access: file.writable ? 'read and write' : 'read-only' },
    warnings: odd === 0 ? [] : [`${quoted(file.path)} ends ${odd} bytes into a page: is it a copy that was cut short?`],
    memory: new ImageMemory(file, parseRegions(regions, file.length)),
    release() {
      // There is no guest to put back.
    },
    async close() {
      file.close()
    },
  }
}
