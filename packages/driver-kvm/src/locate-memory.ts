import { readFileSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { type HostMapping, parseHostAddress, parseMaps } from './host-address.ts'
import { inWindows, type Region, type SharedFile } from './memory-map.ts'
import { type BackedRange, parseMemoryTree } from './memory-tree.ts'
import type { Qmp } from './qmp.ts'
import { object } from './qmp.ts'
import { closeRamFile, openRamFile, openRamFileAt } from './ram-file.ts'

/**
 * Finds where QEMU keeps each range of the guest's memory: its address in QEMU's process, and the shared file behind
 * it. RAM files are opened once and kept across changes of the memory map.
 */
export class MemoryLocator {
  readonly #qmp: Qmp
  readonly #pid: number
  readonly #useFiles: boolean
  /** By inode, or by path where inodes are not known; `undefined`: may not be opened. */
  readonly #files = new Map<number | string, SharedFile | undefined>()
  #text = ''

  constructor(qmp: Qmp, pid: number, useFiles: boolean) {
    this.#qmp = qmp
    this.#pid = pid
    this.#useFiles = useFiles
  }

  /** The regions as they are now; `undefined` when they are what they were at the last call. */
  locate(): Region[] | undefined {
    const text = this.#qmp.human('info mtree -f')
    if (text === this.#text) return undefined
    const ranges = parseMemoryTree(text)
    const maps = this.#maps()
    const regions = ranges.flatMap((range) => this.#regionsOf(range, maps))
    this.#text = text
    return regions
  }

  close(): void {
    for (const file of this.#files.values()) if (file) closeRamFile(file)
    this.#files.clear()
  }

  #maps(): HostMapping[] | undefined {
    try {
      return parseMaps(readFileSync(`/proc/${this.#pid}/maps`, 'latin1'))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EACCES' || code === 'EPERM') return undefined
      if (code === 'ENOENT' || code === 'ESRCH') {
        throw new MicrovmiError('VM_GONE', `QEMU (process ${this.#pid}) has ended`, { cause: error })
      }
      throw error
    }
  }

  /** One region, or several where the host backs a range by several mappings. */
  #regionsOf(range: BackedRange, maps: readonly HostMapping[] | undefined): Region[] {
    const { start, length, kind } = range
    const end = start + length
    if (!maps) return this.#regionsByName(range)
    const hostAddress = parseHostAddress(this.#qmp.human(`gpa2hva 0x${start.toString(16)}`))
    const regions: Region[] = []
    for (let at = start; at < end; ) {
      const host = hostAddress + (at - start)
      const mapping = maps.find((one) => host >= one.start && host < one.end)
      if (!mapping)
        throw new MicrovmiError('PROTOCOL', `QEMU says that memory is at 0x${host.toString(16)}, where it has none`)
      const next = Math.min(end, at + (mapping.end - host))
      const shared = mapping.shared && mapping.inode !== 0 ? this.#file(mapping) : undefined
      const offset = mapping.offset + (host - mapping.start)
      const region = { start: at, end: next, kind, hostAddress: host }
      // A file that is shorter than what is mapped of it would be the end of this process (SIGBUS).
      const isWhole = shared && offset + (next - at) <= shared.size
      regions.push(...(isWhole ? inWindows(region, shared, offset) : [{ ...region, file: undefined }]))
      at = next
    }
    return regions
  }

  #file(mapping: HostMapping): SharedFile | undefined {
    if (!this.#useFiles) return undefined
    if (!this.#files.has(mapping.inode)) this.#files.set(mapping.inode, openRamFile(this.#pid, mapping))
    return this.#files.get(mapping.inode)
  }

  /** Without a look at QEMU's mappings: QEMU tells the path of a memory backend of its own accord. */
  #regionsByName({ block, blockOffset, start, length, kind }: BackedRange): Region[] {
    const region = { start, end: start + length, kind, hostAddress: undefined }
    if (this.#useFiles && !this.#files.has(block)) this.#files.set(block, this.#openByName(block))
    const shared = this.#files.get(block)
    const isWhole = shared && blockOffset + length <= shared.size
    return isWhole ? inWindows(region, shared, blockOffset) : [{ ...region, file: undefined }]
  }

  #openByName(block: string): SharedFile | undefined {
    const path = `/objects/${block.replace(/^\/objects\//, '')}`
    const property = (name: string): unknown => {
      try {
        return this.#qmp.execute('qom-get', { path, property: name })
      } catch (error) {
        // No such object: memory that QEMU made for the machine itself.
        if (error instanceof MicrovmiError && error.code === 'HYPERVISOR') return undefined
        throw error
      }
    }
    const file = property('mem-path')
    return typeof file === 'string' && property('share') === true ? openRamFileAt(file) : undefined
  }
}

/** QEMU's word for how the machine's processors are run. */
export function acceleratorOf(qmp: Qmp): 'kvm' | 'tcg' {
  return object(qmp.execute('query-kvm'), 'query-kvm').enabled === true ? 'kvm' : 'tcg'
}
