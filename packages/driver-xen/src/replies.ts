import {
  type BackendEvent,
  type EventKind,
  MicrovmiError,
  type RegisterChanges,
  type Reply,
} from '@microvmi/core/driver'
import type { Abi } from './abi/versions.ts'
import { FLAG, INSTRUCTION_DATA, READ_DATA, REASON, SLOT, settableRegisters } from './abi/vm-event.ts'

/** Registers that come with a response and those that are written by themselves. */
export function splitChanges(changes: RegisterChanges, abi: Abi): { inSlot: RegisterChanges; others: RegisterChanges } {
  const settable = settableRegisters(abi)
  const inSlot: Record<string, unknown> = {}
  const others: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(changes)) {
    if (value !== undefined) (settable.has(name) ? inSlot : others)[name] = value
  }
  return { inSlot, others }
}

/** Makes a request's slot its response: the vCPU goes on. */
export function proceed(slot: DataView, flags = 0): void {
  const paused = slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused
  slot.setUint32(SLOT.flags, paused | flags, true)
}

/** With registers: those that do not change are as they came. */
export function setRegisters(slot: DataView, changes: RegisterChanges, abi: Abi): void {
  for (const [name, offset] of settableRegisters(abi)) {
    const value = changes[name as keyof RegisterChanges]
    if (typeof value === 'bigint') slot.setBigUint64(offset, value, true)
  }
  slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | FLAG.setRegisters, true)
}

/** Xen's emulator executes the instruction: what the guest has there, this one, or with these data as what it reads. */
export function emulate(slot: DataView, how: Exclude<Reply['emulate'], undefined | false>): void {
  let flags: number = FLAG.emulate
  const bytes = new Uint8Array(slot.buffer, slot.byteOffset, slot.byteLength)
  if (how !== true && 'instruction' in how) {
    if (how.instruction.length > INSTRUCTION_DATA.length)
      throw new MicrovmiError('BAD_ARGUMENT', 'an instruction has at most 16 bytes')
    bytes.fill(0, INSTRUCTION_DATA.bytes, INSTRUCTION_DATA.bytes + INSTRUCTION_DATA.length)
    bytes.set(how.instruction, INSTRUCTION_DATA.bytes)
    flags |= FLAG.setEmulatedInstruction
  } else if (how !== true) {
    if (how.data.length > bytes.length - READ_DATA.bytes) {
      throw new MicrovmiError('BAD_ARGUMENT', `an emulated read takes at most ${bytes.length - READ_DATA.bytes} bytes`)
    }
    slot.setUint32(READ_DATA.size, how.data.length, true)
    bytes.set(how.data, READ_DATA.bytes)
    flags |= FLAG.setEmulatedReadData
  }
  setEmulation(slot, flags)
}

/** Xen's emulator executes the guest's instruction, without what it writes to memory and to I/O ports. */
export function emulateWithoutWrites(slot: DataView): void {
  setEmulation(slot, FLAG.emulate | FLAG.emulateNoWrite)
}

/**
 * vm_event_emulate_check() (Xen 4.18 to 4.20, arch/x86/vm_event.c) goes by the response's own reason, and heeds the
 * flags for three of them alone. A port's access that is answered as a descriptor's, for which nothing else is looked
 * at, is emulated: with its own reason the vCPU would make it again, and be reported again, for ever.
 */
function setEmulation(slot: DataView, flags: number): void {
  slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | flags, true)
  if (slot.getUint32(SLOT.reason, true) === REASON.io) slot.setUint32(SLOT.reason, REASON.descriptor, true)
}

/**
 * A write of a control register that waits for its answer is not made (vm_event_register_write_resume(), Xen,
 * arch/x86/vm_event.c). Before Xen 4.14 every one waits; since then it has been made already, and nothing is left out.
 */
export function leaveOut(slot: DataView): void {
  slot.setUint32(SLOT.flags, slot.getUint32(SLOT.flags, true) | FLAG.deny, true)
}

/** What is to be written to a control register, where a reply forbids the guest's write or gives another value. */
export function wantedValue(event: BackendEvent, parts: Reply, { deferralIsOption }: Abi): bigint | undefined {
  if (event.kind !== 'cr') return undefined
  if (parts.value !== undefined) return parts.value
  return parts.deny === true && deferralIsOption ? event.fields.old : undefined
}

/** Kinds whose instruction has not been executed, and can be left out. */
const DENIABLE: ReadonlySet<EventKind> = new Set<EventKind>(['cr', 'memory', 'int3', 'debug', 'io'])

/** Throws where a part does not go with an event on Xen. */
export function checkParts(event: BackendEvent, parts: Reply): void {
  const { kind } = event
  const refuse = (part: string, why: string) =>
    new MicrovmiError('UNSUPPORTED', `${part} at an event of kind ${kind}: ${why}`)
  if (parts.deny === true && !DENIABLE.has(kind)) throw refuse('deny', 'Xen has done it already')
  if (parts.deny === true && event.kind === 'memory' && !event.fields.access.includes('w')) {
    throw refuse('deny', 'Xen emulates the instruction without its writes, and this access is none')
  }
  if (parts.value !== undefined && kind !== 'cr') throw refuse('value', 'Xen has done it already')
  if (event.kind === 'cr' && event.fields.register === 'xcr0' && (parts.deny === true || parts.value !== undefined)) {
    // hvm_handle_xsetbv() (Xen, arch/x86/hvm/hvm.c) writes it whatever the answer, and it is in no context that is loaded.
    throw refuse(parts.deny === true ? 'deny' : 'value', 'Xen writes XCR0 behind the answer')
  }
  const emulates = parts.emulate !== undefined && parts.emulate !== false
  if (emulates && parts.registers !== undefined) {
    throw refuse('emulate', 'a response has room for registers or for what is to be emulated, not for both')
  }
  const isInstruction = typeof parts.emulate === 'object' && 'instruction' in parts.emulate
  // vm_event_emulate_check() (Xen, arch/x86/vm_event.c)
  if (isInstruction && kind !== 'breakpoint' && kind !== 'int3') {
    throw refuse('emulate', 'Xen emulates another instruction in place of an int3 only')
  }
  if (kind === 'io' && parts.step !== undefined && parts.step !== false) {
    throw refuse('step', 'Xen’s emulator executes the instruction, and a step would be the one behind it')
  }
}
