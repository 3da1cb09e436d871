import type { Registers } from '@microvmi/core'
import type { Reply } from '@microvmi/core/driver'
import { encodeEventMsrs, encodeRegs } from './kernel-structs.testing.ts'
import { EINVAL, ENOENT } from './kernel-tables.testing.ts'
import type { MockBackend } from './qemu-peer.testing.ts'

/** struct kvmi_get_version_reply. */
export function versionReply(isA: boolean): Buffer {
  const version = Buffer.alloc(16)
  version.writeUInt32LE(1, 0)
  if (isA) {
    version[10] = 1
  } else {
    version.writeUInt32LE(8184, 4)
    version[8] = 1
  }
  return version
}

/** READ_PHYSICAL and WRITE_PHYSICAL. */
export function memoryReply(backend: MockBackend, isA: boolean, name: 'read' | 'write', body: Buffer): number | Buffer {
  const address = Number(body.readBigUInt64LE(0))
  const size = isA ? Number(body.readBigUInt64LE(8)) : body.readUInt16LE(8)
  if (!isA && (body.readUInt16LE(10) !== 0 || body.readUInt32LE(12) !== 0)) return EINVAL
  if (size === 0 || (address % 4096) + size > 4096) return EINVAL
  // Kernel 5.4 says EINVAL also where there is no page.
  const missing = isA ? EINVAL : ENOENT
  if (name === 'write') {
    const from = body.subarray(16, 16 + size)
    if (from.length < size) return EINVAL
    return backend.memory.write(address, from) === size ? 0 : missing
  }
  const into = Buffer.alloc(size)
  return backend.memory.read(address, into) === size ? into : missing
}

/** GET_REGISTERS. */
export function registersReply(backend: MockBackend, body: Buffer, vcpu: number): number | Buffer {
  const count = body.readUInt16LE(0)
  if (body.length < 8 + 4 * count) return EINVAL
  const registers = backend.registers.read(vcpu)
  const bytes = Buffer.alloc(472 + 16 * count)
  bytes.writeUInt32LE(8, 0)
  encodeRegs(registers).copy(bytes, 8)
  bytes.writeUInt32LE(count, 464)
  for (let index = 0; index < count; index++) {
    const msr = body.readUInt32LE(8 + 4 * index)
    try {
      bytes.writeUInt32LE(msr, 472 + 16 * index)
      bytes.writeBigUInt64LE(backend.msr.read(vcpu, msr), 480 + 16 * index)
    } catch {
      return EINVAL
    }
  }
  return bytes
}

/** The instruction is tried again, with what is there by now: unless rip is to be elsewhere. */
export function retryReply(backend: MockBackend, vcpu: number, specific: Buffer, pending: Buffer | undefined): Reply {
  const { rip } = backend.registers.read(vcpu)
  if (pending && pending.readBigUInt64LE(128) !== rip) return {}
  const instruction = Buffer.alloc(16)
  const physical = Number(specific.readBigUInt64LE(0))
  const length = Math.min(16, 4096 - (physical % 4096))
  backend.memory.read(physical, instruction.subarray(0, length))
  return { emulate: { instruction } }
}

/** struct kvmi_event (A, which has a view), or struct kvmi_event_hdr and kvmi_vcpu_event (C). */
export function eventBody(registers: Registers, vcpu: number, event: number, view: number | undefined): Buffer {
  const common = Buffer.alloc(16)
  common.writeUInt16LE(544, 0)
  common.writeUInt16LE(vcpu, 2)
  common[8] = 8
  if (view !== undefined) {
    common[4] = event
    common.writeUInt16LE(view, 10)
  }
  const body = Buffer.concat([common, encodeRegs(registers), encodeEventMsrs(registers)])
  if (view !== undefined) return body
  const header = Buffer.alloc(8)
  header.writeUInt16LE(event, 0)
  return Buffer.concat([header, body])
}
