import type { BackendEvent, Injection, InterceptRequest } from '@microvmi/core/driver'

/** One event on the wire, and the event of the mock guest's that it stands for. */
export interface Raised {
  readonly name: string
  readonly specific: Buffer
}

/** Rights of a page that are not all. */
export interface Rights {
  readonly view: number
  readonly frame: number
  readonly rights: number
}

/** What the kernel is to tell of a vCPU. */
export interface VcpuState {
  readonly events: Set<string>
  readonly crs: Set<number>
  readonly msrs: Set<number>
  stepping: boolean
  pauses: number
  /** It is new, and has not told so. */
  created: boolean
  trap: { readonly vector: number; readonly injection: Injection } | undefined
}

/** What is to be armed in the mock for a vCPU, by what it is. */
export function wantsOf(
  vcpu: number,
  state: VcpuState,
  restricted: ReadonlyMap<string, Rights>,
  wanted: Map<string, InterceptRequest>,
): void {
  const { events, crs, msrs } = state
  if (events.has('cr')) {
    for (const register of crs) wanted.set(`cr${register}`, { kind: 'cr', register: `cr${register}` as 'cr3' })
  }
  if (events.has('xsetbv')) wanted.set('xcr0', { kind: 'cr', register: 'xcr0' })
  if (events.has('msr')) for (const msr of msrs) wanted.set(`msr${msr}`, { kind: 'msr', msr })
  if (events.has('breakpoint')) wanted.set('int3', { kind: 'int3' })
  if (events.has('descriptor')) wanted.set('descriptor', { kind: 'descriptor' })
  if (events.has('cpuid')) wanted.set('cpuid', { kind: 'cpuid' })
  if (events.has('hypercall')) wanted.set('hypercall', { kind: 'hypercall' })
  if (events.has('pf')) {
    for (const [key, { view, frame, rights }] of restricted) {
      const access = (['none', 'r', 'w', 'rw', 'x', 'rx', 'wx', 'rwx'] as const)[7 & ~rights] ?? 'rwx'
      if (access === 'none') continue
      wanted.set(`pf${key}:${access}`, { kind: 'memory', address: frame * 4096, length: 4096, access, view })
    }
  }
  // Pauses and traps are raised as steps are: at the vCPU's next instruction.
  if (state.stepping || state.pauses > 0 || state.trap || state.created)
    wanted.set(`step${vcpu}`, { kind: 'singlestep', vcpu })
}

/** What of an event of the mock's is told on the wire. */
export function raisedBy(
  event: BackendEvent,
  state: VcpuState,
  isA: boolean,
  translate: (address: bigint) => number | undefined,
): Raised[] {
  const { events } = state
  switch (event.kind) {
    case 'cr': {
      const { register, old, new: value } = event.fields
      if (register === 'xcr0') return events.has('xsetbv') ? [raised('xsetbv', isA ? [] : [0n, old, value])] : []
      const number = Number(register.slice(2))
      return events.has('cr') && state.crs.has(number) ? [raised('cr', [BigInt(number), old, value])] : []
    }
    case 'msr': {
      const { msr, old = 0n, new: value } = event.fields
      return events.has('msr') && state.msrs.has(msr) ? [raised('msr', [BigInt(msr), old, value])] : []
    }
    case 'int3': {
      const { address, length = 1 } = event.fields
      const physical = BigInt(translate(address) ?? 0)
      return events.has('breakpoint') ? [raised('breakpoint', [physical, BigInt(length)])] : []
    }
    case 'memory': {
      const { address, virtualAddress = 2n ** 64n - 1n, access, view = 0 } = event.fields
      const bits = BigInt(['', 'r', 'w', '', 'x'].indexOf(access)) | (isA ? BigInt(view) << 16n : 0n)
      return events.has('pf') ? [raised('pf', [virtualAddress, BigInt(address), bits])] : []
    }
    case 'cpuid': {
      const { leaf, subleaf, length } = event.fields
      return events.has('cpuid') ? [raised('cpuid', [BigInt(leaf) | (BigInt(subleaf) << 32n), BigInt(length)])] : []
    }
    case 'descriptor': {
      const { table, write } = event.fields
      const number = { idt: 1n, gdt: 2n, ldt: 3n, tr: 4n }[table]
      return events.has('descriptor') ? [raised('descriptor', [number | (write ? 0x100n : 0n)])] : []
    }
    case 'hypercall':
      return events.has('hypercall') ? [raised('hypercall', [])] : []
    case 'singlestep': {
      const isTold = state.stepping && (!isA || events.has('singlestep'))
      const { trap } = state
      return [
        ...(state.created ? [raised('createVcpu', [])] : []),
        ...(isTold ? [raised('singlestep', [0n])] : []),
        ...(trap ? [raised('trap', [BigInt(trap.vector), 0n])] : []),
        ...(state.pauses > 0 ? [raised('pause', [])] : []),
      ]
    }
    default:
      return []
  }
}

export function newVcpu(): VcpuState {
  return {
    events: new Set(),
    crs: new Set(),
    msrs: new Set(),
    stepping: false,
    pauses: 0,
    created: false,
    trap: undefined,
  }
}

export function raised(name: string, words: readonly bigint[]): Raised {
  const specific = Buffer.alloc(8 * words.length)
  for (const [index, word] of words.entries()) specific.writeBigUInt64LE(BigInt.asUintN(64, word), 8 * index)
  return { name, specific }
}
