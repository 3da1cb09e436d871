import { win32 } from 'node:path'
import { type Backend, type BackendWith, type Capability, type Detail, MicrovmiError } from '@microvmi/core/driver'
import { generationOf } from './generation.ts'
import { SavedMemory } from './memory.ts'
import { ARCHITECTURES, type Provider } from './provider.ts'
import { SavedRegisters } from './registers.ts'
import type { SavedFiles } from './saved-files.ts'

/** What every saved state has. It never runs: nothing can be written, resumed or watched. */
export const PROMISES = ['memory.read', 'memory.regions', 'registers.read'] as const satisfies Capability[]

const STILL = 'a saved state does not run'
const READ_ONLY = 'a saved state is read only: what is written would not reach the VM when it is resumed'

/** More vCPUs than Hyper-V gives a VM (2,048): a number above is no number of vCPUs. */
const MOST_VCPUS = 4096

const EVENTS = [
  ...(['events.cr', 'events.msr', 'events.breakpoint', 'events.int3', 'events.watchpoint', 'events.memory'] as const),
  ...(['events.singlestep', 'events.cpuid', 'events.descriptor', 'events.debug', 'events.hypercall'] as const),
  ...(['events.privcall', 'events.io', 'events.interrupt', 'events.lifecycle'] as const),
]

const LACKS: NonNullable<Backend['lacks']> = {
  ...Object.fromEntries(EVENTS.map((kind) => [kind, 'nothing happens in a saved state: it does not run'])),
  'memory.write': READ_ONLY,
  'registers.write': READ_ONLY,
  'msr.write': READ_ONLY,
  'msr.read': 'the library has no model-specific registers but EFER, which readRegisters gives',
  'memory.map': 'the file holds memory in packed blocks: it can be copied, not mapped',
  pause: STILL,
  inject: STILL,
  'memory.access': STILL,
  'memory.alloc': STILL,
  views: STILL,
}

/** One loaded saved state. */
export function savedBackend(
  provider: Provider,
  state: bigint,
  vm: string,
  files: SavedFiles,
  cacheBlocks: number,
): BackendWith<(typeof PROMISES)[number]> {
  const vcpuCount = countOf(provider, state)
  const architecture = architectureOf(provider, state)
  const generation = generationOf(provider, state)
  if (generation === '17763' && architecture !== 'x64') {
    throw new MicrovmiError(
      'UNSUPPORTED',
      `${provider.path} is of the first SDK and gives registers of 64-bit guests: use the one of SDK 10.0.18362 or newer`,
    )
  }
  const registers = new SavedRegisters(provider, state, generation)
  const pagingMode = registers.pagingMode(0)
  for (let vcpu = 1; vcpu < vcpuCount; vcpu += 1) registers.pagingMode(vcpu)
  const isCached = provider.tries('SetMemoryBlockCacheLimit', state, cacheBlocks)
  const [file] = Object.values(files)
  return {
    name: win32.basename(vm),
    id: file ?? vm,
    hypervisor: 'Hyper-V saved state',
    vcpuCount,
    capabilities: PROMISES,
    lacks: LACKS,
    details: {
      files: Object.values(files).join(', '),
      library: provider.path,
      sdk: generation,
      architecture,
      pagingMode,
      cacheBlocks: isCached ? cacheBlocks : 0,
      ...trustLevels(provider, state),
    },
    warnings:
      generation === '17763'
        ? ['the library is of the first SDK: segments have no limit and no attributes, and only FS and GS a base']
        : [],
    memory: new SavedMemory(provider, state),
    registers,
    release() {},
    async close() {
      provider.call('ReleaseSavedStateFiles', state)
    },
  }
}

function countOf(provider: Provider, state: bigint): number {
  const count = new Uint32Array(1)
  provider.call('GetVpCount', state, count)
  const [vcpus = 0] = count
  if (vcpus > 0 && vcpus <= MOST_VCPUS) return vcpus
  throw new MicrovmiError('PROTOCOL', `the saved state has ${vcpus} vCPUs: the file is damaged`)
}

function architectureOf(provider: Provider, state: bigint): string {
  const architecture = new Int32Array(1)
  provider.call('GetArchitecture', state, 0, architecture)
  const [number = 0] = architecture
  const name = number === 1 || number === 2 || number === 3 ? ARCHITECTURES[number] : undefined
  if (name === 'x64' || name === 'x86') return name
  throw new MicrovmiError(
    'UNSUPPORTED',
    `the guest's processors are ${name ?? `of kind ${number}`}: x86-64 is supported`,
  )
}

/** Virtual trust levels and the guest's system, of vCPU 0, where the library tells. */
function trustLevels(provider: Provider, state: bigint): Record<string, Detail> {
  const details: Record<string, Detail> = {}
  const level = new Uint8Array(1)
  const levels = new Uint32Array(1)
  const system = new BigUint64Array(1)
  if (provider.tries('GetActiveVirtualTrustLevel', state, 0, level)) details.virtualTrustLevel = level[0] ?? 0
  if (provider.tries('GetEnabledVirtualTrustLevels', state, 0, levels)) {
    // A bit for each level (VmSavedStateDump.h).
    details.enabledVirtualTrustLevels = [0, 1, 2].filter((bit) => ((levels[0] ?? 0) >>> bit) & 1).join(', ')
  }
  if (provider.tries('GetGuestOsInfo', state, level[0] ?? 0, system)) {
    details.guestSystem = `0x${(system[0] ?? 0n).toString(16)}`
  }
  return details
}
