import { type Access, type EventKind, type EventKinds, type InterceptRequest, PAGE_SIZE } from '@microvmi/core/driver'
import { ALL_RIGHTS, accessOf, bitsOf } from '@microvmi/page-rights'
import type { Abi } from './abi/versions.ts'
import {
  CONTROL_REGISTER,
  CONTROL_REGISTERS,
  CPUID,
  DESCRIPTOR,
  HAS_VIRTUAL_ADDRESS,
  IO,
  MEMORY_ACCESS,
  MSR,
  REASON,
  ripOf,
  SLOT,
  TABLES,
} from './abi/vm-event.ts'
import type { Breakpoints } from './breakpoints.ts'
import type { XenViews } from './views.ts'

/** struct vm_event_debug: gfn, insn_length, at the place that the version has. */
const DEBUG_GFN = 24
/** Where a breakpoint's request has the length of its instruction. */
export const DEBUG_LENGTH = ({ debug }: Abi): number => debug.length

/** The guest-physical address of the instruction that a breakpoint's request is about. */
export function physicalOf(slot: DataView, rip: bigint): number {
  return Number(slot.getBigUint64(DEBUG_GFN, true)) * PAGE_SIZE + Number(rip & 0xfffn)
}

/** The kind of event that a request is; `undefined` for what this driver never asks for. */
export function kindOf(slot: DataView, abi: Abi, breakpoints: Breakpoints): EventKind | undefined {
  switch (slot.getUint32(SLOT.reason, true)) {
    case REASON.controlRegister:
      return CONTROL_REGISTERS[slot.getUint32(CONTROL_REGISTER.index, true)] === undefined ? undefined : 'cr'
    case REASON.msr:
      return 'msr'
    case REASON.breakpoint:
      return breakpoints.has(physicalOf(slot, ripOf(slot, abi))) ? 'breakpoint' : 'int3'
    case REASON.debugException:
      return 'debug'
    case REASON.descriptor:
      return TABLES[slot.getUint8(DESCRIPTOR.table) - 1] === undefined ? undefined : 'descriptor'
    case REASON.guestRequest:
      return 'hypercall'
    case REASON.memoryAccess:
      return (slot.getUint32(MEMORY_ACCESS.flags, true) & ALL_RIGHTS) === 0 ? undefined : 'memory'
    case REASON.singleStep:
      return 'singlestep'
    case REASON.cpuid:
      return 'cpuid'
    case REASON.io:
      return 'io'
    default:
      return undefined
  }
}

type Fields = EventKinds[EventKind]['event']

/** The frame that an access was to. */
export function faultFrame(slot: DataView): number {
  return Number(slot.getBigUint64(MEMORY_ACCESS.gfn, true))
}

/** What an event of that kind tells. */
export function eventFields(kind: EventKind, slot: DataView, abi: Abi, views: XenViews): Fields {
  switch (kind) {
    case 'cr': {
      const register = CONTROL_REGISTERS[slot.getUint32(CONTROL_REGISTER.index, true)] ?? 'cr0'
      return {
        register,
        old: slot.getBigUint64(CONTROL_REGISTER.old, true),
        new: slot.getBigUint64(CONTROL_REGISTER.next, true),
      }
    }
    case 'msr':
      return {
        msr: Number(slot.getBigUint64(MSR.index, true)),
        old: slot.getBigUint64(MSR.old, true),
        new: slot.getBigUint64(MSR.next, true),
      }
    case 'int3':
      return { address: ripOf(slot, abi), length: slot.getUint32(abi.debug.length, true) || undefined }
    case 'debug':
      return {
        address: ripOf(slot, abi),
        dr6: abi.debug.pending === undefined ? undefined : slot.getBigUint64(abi.debug.pending, true),
      }
    case 'descriptor':
      return {
        table: TABLES[slot.getUint8(DESCRIPTOR.table) - 1] ?? 'gdt',
        write: slot.getUint8(DESCRIPTOR.write) !== 0,
      }
    case 'hypercall':
      return { number: undefined }
    case 'memory': {
      const flags = slot.getUint32(MEMORY_ACCESS.flags, true)
      return {
        address: faultFrame(slot) * PAGE_SIZE + Number(slot.getBigUint64(MEMORY_ACCESS.offset, true) & 0xfffn),
        virtualAddress:
          (flags & HAS_VIRTUAL_ADDRESS) === 0 ? undefined : slot.getBigUint64(MEMORY_ACCESS.virtualAddress, true),
        access: accessOf(flags) as Exclude<Access, 'none'>,
        view: views.isOn ? views.named(slot.getUint16(SLOT.view, true)) : undefined,
      }
    }
    case 'cpuid':
      return {
        leaf: slot.getUint32(CPUID.leaf, true),
        subleaf: slot.getUint32(CPUID.subleaf, true),
        length: slot.getUint32(CPUID.length, true),
      }
    case 'io':
      return {
        port: slot.getUint16(IO.port, true),
        size: slot.getUint32(IO.bytes, true),
        direction: slot.getUint8(IO.isIn) === 0 ? 'out' : 'in',
      }
    default:
      return { address: ripOf(slot, abi) }
  }
}

/** Whether an event passes a request's own filters. */
export function isWanted(request: InterceptRequest, fields: Fields): boolean {
  if (request.kind === 'cr') {
    const { register, old, new: next } = fields as EventKinds['cr']['event']
    return request.register === register && (request.mask === undefined || ((old ^ next) & request.mask) !== 0n)
  }
  if (request.kind === 'msr') {
    const { msr, old, new: next } = fields as EventKinds['msr']['event']
    return request.msr === msr && (request.onChange === false || old !== next)
  }
  if (request.kind === 'memory') {
    const { address, access, view } = fields as EventKinds['memory']['event']
    const frame = Math.floor(address / PAGE_SIZE)
    const first = Math.floor(request.address / PAGE_SIZE)
    const last = Math.floor((request.address + Math.max(request.length, 1) - 1) / PAGE_SIZE)
    const isThere = frame >= first && frame <= last && (bitsOf(access) & bitsOf(request.access)) !== 0
    return isThere && (request.view === undefined || request.view === (view ?? 0))
  }
  if (request.kind === 'cpuid') {
    return request.leaf === undefined || request.leaf === (fields as EventKinds['cpuid']['event']).leaf
  }
  if (request.kind === 'io') {
    return request.port === undefined || request.port === (fields as EventKinds['io']['event']).port
  }
  return true
}
