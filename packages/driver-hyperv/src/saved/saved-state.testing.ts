import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RegisterName, Segment } from '@microvmi/core'
import koffi from 'koffi'
import { OLD_SEGMENTS, REGISTERS } from './register-ids.ts'

/** The library's stand-in (labs/windows/stand-ins/saved-state.c) in one of its builds. */
export function provider(build: 'current' | '17763' | 'lacking' = 'current'): string {
  const libraries = process.env.MICROVMI_WINDOWS_LIBRARIES ?? ''
  return join(libraries, build === 'current' ? '' : build, 'VmSavedStateDumpProvider.dll')
}

/** What the stand-in counts: states that are loaded, and the last limit of the cache. */
export function counts(build: 'current' | '17763' = 'current') {
  const library = koffi.load(provider(build))
  const openStates = library.func('uint32 StandInOpenStates()')
  const cacheBlocks = library.func('uint64 StandInCacheBlocks()')
  return { openStates: () => Number(openStates()), cacheBlocks: () => Number(cacheBlocks()) }
}

/** A directory of saved states, where the stand-in finds them by VM name until `end`. */
export class SavedStates {
  readonly directory = mkdtempSync(join(tmpdir(), 'saved-'))

  constructor() {
    process.env.SAVED_STATES = this.directory
  }

  /** Writes a file; its path. */
  file(name: string, contents: Readonly<Record<string, string | number>> = {}): string {
    const lines = Object.entries(contents).map(([key, value]) => `${key}=${value}\n`)
    return this.text(name, ['microvmi saved state\n', ...lines].join(''))
  }

  text(name: string, text: string): string {
    const path = join(this.directory, name)
    writeFileSync(path, text)
    return path
  }

  end(): void {
    delete process.env.SAVED_STATES
    rmSync(this.directory, { recursive: true })
  }
}

/** What the stand-in's memory holds: every 4 bytes tell their place. */
export function bytesAt(address: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, offset) => {
    const place = address + offset
    const word = Math.imul(Math.floor(place / 4) >>> 0, 2654435761 | 0)
    return (word >>> ((place % 4) * 8)) & 0xff
  })
}

/** What its registers hold. */
export function registersOf(build: 'current' | '17763', vcpu: number) {
  const values = REGISTERS.map(({ register, id, form }) => {
    const base = 0xffff_8000_0000_0000n | (BigInt(vcpu + 1) << 32n) | BigInt(id)
    if (register === 'rflags') return [register, 0x246n + BigInt(vcpu)]
    if (register === 'cr0') return [register, 0x8005_0033n]
    if (register === 'cr3') return [register, 0x10_0000n + BigInt(vcpu * 0x1000)]
    if (register === 'efer') return [register, 0xd01n]
    if (form === 'integer') return [register, (BigInt(vcpu + 1) << 32n) | BigInt(id)]
    if (form === 'table') return [register, { base, limit: 0x0f00 + id }]
    return [register, build === 'current' ? currentSegment(base, id) : oldSegment(register, base, id)]
  })
  return Object.fromEntries(values)
}

function currentSegment(base: bigint, id: number): Segment {
  return { base, limit: 0xffff_0000 + id, selector: id * 8, attributes: 0xa09b }
}

function oldSegment(register: RegisterName, base: bigint, id: number): Segment {
  const hasBase = OLD_SEGMENTS.some((segment) => segment.register === register && segment.base !== undefined)
  return { base: hasBase ? base : undefined, limit: undefined, selector: id * 8, attributes: undefined }
}
