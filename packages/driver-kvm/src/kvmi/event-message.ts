import { MicrovmiError } from '@microvmi/core/driver'
import type { EventName, Generation } from './generation.ts'
import { ACTION, EVENT, VCPU_HEADER_LENGTH } from './layout.ts'
import type { Message } from './message.ts'
import { eventId } from './requests.ts'

/** An event as it came, in a buffer of its own. */
export interface KvmiEvent {
  readonly name: EventName
  readonly seq: number
  /** 0 for an event of the VM. */
  readonly vcpu: number
  readonly view: DataView
  /** Where `struct kvmi_event` (A) or `struct kvmi_vcpu_event` (C) begins. */
  readonly start: number
  /** Where the event's own part begins. */
  readonly specific: number
}

/** Bytes that an event's own part has at least: its structure in asm/kvmi.h or linux/kvmi.h. */
const SPECIFIC_LENGTH: Readonly<Record<EventName, number>> = {
  unhook: 0,
  createVcpu: 0,
  pause: 0,
  cr: 24,
  msr: 24,
  xsetbv: 0,
  breakpoint: 16,
  hypercall: 0,
  pageFault: 24,
  trap: 16,
  descriptor: 8,
  // A bare event, in the documentation; a byte `failed` in the headers.
  singlestep: 0,
  cpuid: 12,
}
const XSETBV_LENGTH = 24

/** Reads an event. Throws `PROTOCOL` for what is none. */
export function decodeEvent(generation: Generation, id: number, seq: number, body: Uint8Array): KvmiEvent {
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  const start = generation.eventHeaderLength
  if (start > 0 && id === generation.vmEventMessage) return decodeVmEvent(generation, seq, view)
  if (body.length < start + 8) throw tooShort(body.length)
  const size = view.getUint16(start, true)
  const name = nameOf(generation, start > 0 ? view.getUint16(0, true) : view.getUint8(start + EVENT.name))
  const vcpu = view.getUint16(start + EVENT.vcpu, true)
  const specific = start + size
  if (name === 'unhook') {
    if (start > 0) throw new MicrovmiError('PROTOCOL', 'a KVMi event unhook of a vCPU')
    return { name, seq, vcpu: 0, view, start, specific: start }
  }
  if (size < EVENT.length) throw tooShort(size)
  const needed = name === 'xsetbv' && generation.xsetbvHasValues ? XSETBV_LENGTH : SPECIFIC_LENGTH[name]
  if (body.length < specific + needed) throw tooShort(body.length)
  return { name, seq, vcpu, view, start, specific }
}

/** struct kvmi_event_hdr alone: u16 event. */
function decodeVmEvent(generation: Generation, seq: number, view: DataView): KvmiEvent {
  if (view.byteLength < generation.eventHeaderLength) throw tooShort(view.byteLength)
  const name = nameOf(generation, view.getUint16(0, true))
  if (name !== 'unhook') throw new MicrovmiError('PROTOCOL', `a KVMi event ${name} that is about no vCPU`)
  return { name, seq, vcpu: 0, view, start: 0, specific: 0 }
}

const namesOf = new WeakMap<Generation, Map<number, EventName>>()

function nameOf(generation: Generation, id: number): EventName {
  let names = namesOf.get(generation)
  if (!names) {
    names = new Map((Object.keys(generation.events) as EventName[]).map((name) => [eventId(generation, name), name]))
    namesOf.set(generation, names)
  }
  const name = names.get(id)
  if (name !== undefined) return name
  throw new MicrovmiError('PROTOCOL', `a KVMi event ${id}, which generation ${generation.name} does not have`)
}

function tooShort(length: number): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `a KVMi event of ${length} bytes: it is too short for what it says it is`)
}

/** How a vCPU goes on. */
export interface EventAnswer {
  readonly action: keyof typeof ACTION
  /** What a CR or MSR becomes. */
  readonly value?: bigint
  /** What a read that faulted finds, at most 256 bytes, where the generation takes it. */
  readonly data?: Uint8Array
}

/** Writes an event's answer: vCPU header, u8 action, u8 event, then the event's own part. */
export function encodeAnswer(generation: Generation, message: Message, event: KvmiEvent, answer: EventAnswer): void {
  const isWrite = event.name === 'cr' || event.name === 'msr'
  const own = isWrite ? 8 : event.name === 'pageFault' ? generation.pageFaultReplyLength : 0
  message.begin(generation.eventReplyMessage, VCPU_HEADER_LENGTH + 8 + own)
  message.seq = event.seq
  message.setUint16(0, event.vcpu)
  message.setUint8(8, ACTION[answer.action])
  message.setUint8(9, generation.events[event.name] ?? 0)
  // kvmi_event_cr_reply, kvmi_event_msr_reply: u64 new_val.
  if (isWrite) message.setBigUint64(16, answer.value ?? newValue(event))
  // kvmi_event_pf_reply: u64 ctx_addr, u32 ctx_size, u8 ctx_data[] at 16.
  if (event.name === 'pageFault' && own > 0 && answer.data) {
    message.setBigUint64(16, event.view.getBigUint64(event.specific, true))
    message.setUint32(24, answer.data.length)
    message.setBytes(32, answer.data)
  }
}

/** What the guest is about to write: kvmi_event_cr, kvmi_event_msr: u64 new_value at 16. */
export function newValue({ view, specific }: KvmiEvent): bigint {
  return view.getBigUint64(specific + 16, true)
}

/** What is there now: u64 old_value at 8. */
export function oldValue({ view, specific }: KvmiEvent): bigint {
  return view.getBigUint64(specific + 8, true)
}
