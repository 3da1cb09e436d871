import {
  type BackendEvent,
  badArgument,
  type EventKind,
  type EventKinds,
  type InterceptRequest,
  MicrovmiError,
} from '@microvmi/core/driver'
import { accessOf } from '@microvmi/page-rights'
import type { Control, Controls } from './controls.ts'
import { type KvmiEvent, newValue, oldValue } from './event-message.ts'
import type { EventName } from './generation.ts'
import { eventRegisters } from './kvm-registers.ts'
import { DESCRIPTORS, EVENT, PAGE } from './layout.ts'

/** MSRs whose writes KVM can intercept (kvmi.rst, CONTROL_MSR). */
const MSR_RANGES = [
  [0, 0x1fff],
  [0xc000_0000, 0xc000_1fff],
] as const
/** The kernel has no virtual address for the access: ~0. */
const NO_ADDRESS = 0xffff_ffff_ffff_ffffn

type RequestOf<K extends EventKind> = Extract<InterceptRequest, { readonly kind: K }>
/** Kinds that one event of the kernel's makes. */
export type PlainKind = 'cr' | 'msr' | 'int3' | 'memory' | 'singlestep' | 'cpuid' | 'descriptor' | 'hypercall'

/** The kernel's event behind each kind; for CR also XSETBV. */
export const EVENT_OF: Readonly<Record<PlainKind, EventName>> = {
  cr: 'cr',
  msr: 'msr',
  int3: 'breakpoint',
  memory: 'pageFault',
  singlestep: 'singlestep',
  cpuid: 'cpuid',
  descriptor: 'descriptor',
  hypercall: 'hypercall',
}

/** What is to be turned on for a request. Throws `UNSUPPORTED` for filters that the kernel lacks, `BAD_ARGUMENT`. */
export function controlsFor(request: RequestOf<PlainKind>, controls: Controls, hasXcr0: boolean): Control[] {
  switch (request.kind) {
    case 'cr':
      requireChanges(request.onChange)
      if (request.register !== 'xcr0') return [controls.events('cr'), controls.register(numberOf(request.register))]
      if (hasXcr0) return [controls.events('xsetbv')]
      throw new MicrovmiError('UNSUPPORTED', 'KVMi of this kernel does not tell what is written to XCR0')
    case 'msr':
      requireChanges(request.onChange)
      if (!MSR_RANGES.some(([first, last]) => request.msr >= first && request.msr <= last)) {
        throw new MicrovmiError(
          'UNSUPPORTED',
          `KVM intercepts writes to MSRs 0 to 0x1fff and 0xc0000000 to 0xc0001fff, not to 0x${request.msr.toString(16)}`,
        )
      }
      return [controls.events('msr'), controls.msr(request.msr)]
    case 'singlestep':
      // Stepping is turned on vCPU by vCPU.
      return []
    default:
      return [controls.events(EVENT_OF[request.kind])]
  }
}

function requireChanges(onChange: boolean | undefined): void {
  if (onChange !== false) return
  throw new MicrovmiError('UNSUPPORTED', 'KVM reports only writes that change the value: leave onChange out')
}

function numberOf(register: string): number {
  const number = ['cr0', 'cr3', 'cr4'].indexOf(register)
  if (number < 0) throw badArgument(`register is cr0, cr3, cr4 or xcr0, not ${register}`)
  return [0, 3, 4][number] ?? 0
}

/** An event as core takes it, without the requests that it answers to. */
export type Occurrence = {
  [K in PlainKind]: { readonly kind: K; readonly fields: EventKinds[K]['event'] }
}[PlainKind]

/** What an event says. `undefined` for those that are no kind of core's. */
export function occurrenceOf(event: KvmiEvent): Occurrence | undefined {
  const { view, specific, start } = event
  // kvm_regs: rax first, rip at 128.
  const rip = () => view.getBigUint64(start + EVENT.regs + 128, true)
  switch (event.name) {
    case 'cr': {
      const register = crNames[view.getUint8(specific)]
      if (!register) throw new MicrovmiError('PROTOCOL', `KVMi tells of CR${view.getUint8(specific)}`)
      return { kind: 'cr', fields: { register, old: oldValue(event), new: newValue(event) } }
    }
    case 'xsetbv':
      return { kind: 'cr', fields: { register: 'xcr0', old: oldValue(event), new: newValue(event) } }
    case 'msr':
      return {
        kind: 'msr',
        fields: { msr: view.getUint32(specific, true), old: oldValue(event), new: newValue(event) },
      }
    case 'breakpoint':
      return { kind: 'int3', fields: { address: rip(), length: view.getUint8(specific + 8) || undefined } }
    case 'pageFault':
      return { kind: 'memory', fields: pageFault(event) }
    case 'singlestep':
      return { kind: 'singlestep', fields: { address: rip() } }
    case 'cpuid': {
      // kvmi_event_cpuid: u32 function, u32 index, u8 insn_length.
      const [leaf, subleaf] = [view.getUint32(specific, true), view.getUint32(specific + 4, true)]
      return { kind: 'cpuid', fields: { leaf, subleaf, length: view.getUint8(specific + 8) } }
    }
    case 'descriptor': {
      const table = DESCRIPTORS[view.getUint8(specific)]
      if (!table) throw new MicrovmiError('PROTOCOL', `KVMi tells of descriptor table ${view.getUint8(specific)}`)
      return { kind: 'descriptor', fields: { table, write: view.getUint8(specific + 1) !== 0 } }
    }
    case 'hypercall':
      return { kind: 'hypercall', fields: { number: view.getBigUint64(start + EVENT.regs, true) } }
    default:
      return undefined
  }
}

const crNames: readonly (undefined | 'cr0' | 'cr3' | 'cr4')[] = ['cr0', undefined, undefined, 'cr3', 'cr4']

/** kvmi_event_pf: u64 gva, u64 gpa, u8 access, (A: u16 view at 18). */
function pageFault({ view, specific }: KvmiEvent): EventKinds['memory']['event'] {
  const gva = view.getBigUint64(specific, true)
  const access = accessOf(view.getUint8(specific + 16))
  if (access === 'none') throw new MicrovmiError('PROTOCOL', 'KVMi tells of a page fault by no access')
  return {
    address: pageFaultAddress(view, specific),
    virtualAddress: gva === NO_ADDRESS ? undefined : gva,
    access,
    // Generation C has padding there: its only view is the guest's own.
    view: view.getUint16(specific + 18, true),
  }
}

function pageFaultAddress(view: DataView, specific: number): number {
  return view.getUint32(specific + 8, true) + (view.getUint32(specific + 12, true) % 2 ** 20) * 2 ** 32
}

/** The guest-physical address of a breakpoint: kvmi_event_breakpoint: u64 gpa. */
export function breakpointAddress({ view, specific }: KvmiEvent): number {
  return view.getUint32(specific, true) + (view.getUint32(specific + 4, true) % 2 ** 20) * 2 ** 32
}

/** Where a page fault was, by view and frame. */
export function faultFrame({ view, specific }: KvmiEvent): { readonly view: number; readonly frame: number } {
  return {
    view: view.getUint16(specific + 18, true),
    frame: Math.floor(pageFaultAddress(view, specific) / PAGE),
  }
}

/** Whether a request asks for this. Stepping is matched elsewhere: it depends on who asked for the step. */
export function fits(request: InterceptRequest, { kind, fields }: Occurrence, forbidden: boolean): boolean {
  if (request.kind !== kind) return false
  switch (request.kind) {
    case 'cr': {
      if (kind !== 'cr' || request.register !== fields.register) return false
      return request.mask === undefined || ((fields.old ^ fields.new) & request.mask) !== 0n
    }
    case 'msr':
      return kind === 'msr' && request.msr === fields.msr
    case 'cpuid':
      return kind === 'cpuid' && (request.leaf === undefined || request.leaf === fields.leaf)
    case 'memory': {
      if (kind !== 'memory') return false
      const frame = Math.floor(fields.address / PAGE)
      const last = Math.floor((request.address + Math.max(request.length, 1) - 1) / PAGE)
      const covers = frame >= Math.floor(request.address / PAGE) && frame <= last
      const inView = request.view === undefined || request.view === fields.view
      return covers && inView && (forbidden || [...fields.access].some((one) => request.access.includes(one)))
    }
    default:
      return true
  }
}

/** An event for core. */
export function backendEvent(event: KvmiEvent, occurrence: Occurrence, armed: readonly number[]): BackendEvent {
  return {
    ...occurrence,
    armed,
    vcpu: event.vcpu,
    stops: 'vcpu',
    complete: true,
    registers: () => eventRegisters(event.view, event.start),
  }
}
