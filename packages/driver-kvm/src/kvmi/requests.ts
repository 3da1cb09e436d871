import { MicrovmiError } from '@microvmi/core/driver'
import type { Command, EventName, Generation } from './generation.ts'
import { KVM_REGS_LENGTH, VCPU_HEADER_LENGTH } from './layout.ts'
import type { Message } from './message.ts'

/** The id of a command. Throws `UNSUPPORTED` where the generation has none. */
export function commandId(generation: Generation, command: Command): number {
  const id = generation.commands[command]
  if (id !== undefined) return id
  throw new MicrovmiError('UNSUPPORTED', `KVMi of generation ${generation.name} has no command for this (${command})`)
}

/** The id of an event. Throws `UNSUPPORTED` where the generation has none. */
export function eventId(generation: Generation, event: EventName): number {
  const id = generation.events[event]
  if (id !== undefined) return id
  throw new MicrovmiError('UNSUPPORTED', `KVMi of generation ${generation.name} has no such event (${event})`)
}

/**
 * Writes the commands of one generation. Structures: include/linux/kvmi.h and asm/kvmi.h of libkvmi (A), of the
 * kernel's v12 series (C), under the names given.
 */
export class Requests {
  readonly #generation: Generation

  constructor(generation: Generation) {
    this.#generation = generation
  }

  /** No body. */
  getVersion(message: Message): void {
    message.begin(this.#id('getVersion'), 0)
  }

  /** kvmi_check_command, kvmi_vm_check_command: u16 id. */
  checkCommand(message: Message, id: number): void {
    message.begin(this.#id('checkCommand'), 8)
    message.setUint16(0, id)
  }

  /** kvmi_check_event, kvmi_vm_check_event: u16 id. */
  checkEvent(message: Message, id: number): void {
    message.begin(this.#id('checkEvent'), 8)
    message.setUint16(0, id)
  }

  /** No body. */
  getInfo(message: Message): void {
    message.begin(this.#id('getInfo'), 0)
  }

  /** No body. */
  getMaxGfn(message: Message): void {
    message.begin(this.#id('getMaxGfn'), 0)
  }

  /** kvmi_control_vm_events, kvmi_vm_control_events: u16 event_id, u8 enable. */
  controlVmEvents(message: Message, event: EventName, enable: boolean): void {
    message.begin(this.#id('controlVmEvents'), 8)
    message.setUint16(0, eventId(this.#generation, event))
    message.setUint8(2, Number(enable))
  }

  /** kvmi_control_events, kvmi_vcpu_control_events: u16 event_id, u8 enable. */
  controlEvents(message: Message, vcpu: number, event: EventName, enable: boolean): void {
    this.#beginVcpu(message, 'controlEvents', vcpu, 8)
    message.setUint16(8, eventId(this.#generation, event))
    message.setUint8(10, Number(enable))
  }

  /** kvmi_control_cr: u8 enable, u32 cr at 4. kvmi_vcpu_control_cr: u8 cr, u8 enable. */
  controlCr(message: Message, vcpu: number, register: number, enable: boolean): void {
    this.#beginVcpu(message, 'controlCr', vcpu, 8)
    if (this.#generation.crEnableFirst) {
      message.setUint8(8, Number(enable))
      message.setUint32(12, register)
    } else {
      message.setUint8(8, register)
      message.setUint8(9, Number(enable))
    }
  }

  /** kvmi_control_msr, kvmi_vcpu_control_msr: u8 enable, u32 msr at 4. */
  controlMsr(message: Message, vcpu: number, index: number, enable: boolean): void {
    this.#beginVcpu(message, 'controlMsr', vcpu, 8)
    message.setUint8(8, Number(enable))
    message.setUint32(12, index)
  }

  /** kvmi_vcpu_control_singlestep: u8 enable. */
  controlSinglestep(message: Message, vcpu: number, enable: boolean): void {
    this.#beginVcpu(message, 'controlSinglestep', vcpu, 8)
    message.setUint8(8, Number(enable))
  }

  /** kvmi_pause_vcpu: u8 wait behind a vCPU header. kvmi_vm_pause_vcpu: u16 vcpu, u8 wait. */
  pauseVcpu(message: Message, vcpu: number): void {
    if (this.#generation.pauseHasVcpuHeader) {
      this.#beginVcpu(message, 'pauseVcpu', vcpu, 8)
      message.setUint8(8, 1)
    } else {
      message.begin(this.#id('pauseVcpu'), 8)
      message.setUint16(0, vcpu)
      message.setUint8(2, 1)
    }
  }

  /** kvmi_get_registers, kvmi_vcpu_get_registers: u16 nmsrs, u32 msrs_idx[] at 8. */
  getRegisters(message: Message, vcpu: number, msrs: readonly number[]): void {
    this.#beginVcpu(message, 'getRegisters', vcpu, 8 + 4 * msrs.length)
    message.setUint16(8, msrs.length)
    for (const [index, msr] of msrs.entries()) message.setUint32(16 + 4 * index, msr)
  }

  /** struct kvm_regs. */
  setRegisters(message: Message, vcpu: number, regs: Uint8Array): void {
    this.#beginVcpu(message, 'setRegisters', vcpu, KVM_REGS_LENGTH)
    message.setBytes(VCPU_HEADER_LENGTH, regs)
  }

  /** kvmi_read_physical: u64 gpa, u64 size. kvmi_vm_read_physical: u64 gpa, u16 size. */
  readPhysical(message: Message, address: number, length: number): void {
    message.begin(this.#id('readPhysical'), 16)
    this.#setRange(message, address, length)
  }

  /** As `readPhysical`, then the bytes. */
  writePhysical(message: Message, address: number, bytes: Uint8Array): void {
    message.begin(this.#id('writePhysical'), 16 + bytes.length)
    this.#setRange(message, address, bytes.length)
    message.setBytes(16, bytes)
  }

  /** kvmi_inject_exception: u8 nr, (5.0: u8 has_error,) u32 error_code at 4, u64 address at 8. */
  injectException(
    message: Message,
    vcpu: number,
    vector: number,
    errorCode: number | undefined,
    address: bigint,
  ): void {
    this.#beginVcpu(message, 'injectException', vcpu, 16)
    message.setUint8(8, vector)
    if (this.#generation.injectionSaysHasError) message.setUint8(9, Number(errorCode !== undefined))
    message.setUint32(12, errorCode ?? 0)
    message.setBigUint64(16, address)
  }

  /**
   * kvmi_set_page_access: u16 view, u16 count. kvmi_vm_set_page_access: u16 count. Then entries of 16 bytes: u64 gpa,
   * u8 access.
   */
  setPageAccess(message: Message, view: number, frames: readonly number[], rights: readonly number[]): void {
    message.begin(this.#id('setPageAccess'), 8 + 16 * frames.length)
    if (this.#generation.pageAccessHasView) message.setUint16(0, view)
    message.setUint16(this.#generation.pageAccessHasView ? 2 : 0, frames.length)
    for (const [index, frame] of frames.entries()) {
      message.setWord(8 + 16 * index, frame * 4096)
      message.setUint8(16 + 16 * index, rights[index] ?? 0)
    }
  }

  /** No body. */
  createView(message: Message): void {
    message.begin(this.#id('createView'), 0)
  }

  /** kvmi_destroy_ept_view: u16 view. */
  destroyView(message: Message, view: number): void {
    message.begin(this.#id('destroyView'), 8)
    message.setUint16(0, view)
  }

  /** kvmi_switch_ept_view_req: u16 view. */
  switchView(message: Message, vcpu: number, view: number): void {
    this.#beginVcpu(message, 'switchView', vcpu, 8)
    message.setUint16(8, view)
  }

  /** kvmi_vcpu_change_gfn: u16 view, u64 old_gfn at 8, u64 new_gfn at 16. */
  changeGfn(message: Message, vcpu: number, view: number, frame: number, shown: number): void {
    this.#beginVcpu(message, 'changeGfn', vcpu, 24)
    message.setUint16(8, view)
    message.setWord(16, frame)
    message.setWord(24, shown)
  }

  #id(command: Command): number {
    return commandId(this.#generation, command)
  }

  #beginVcpu(message: Message, command: Command, vcpu: number, size: number): void {
    message.begin(this.#id(command), VCPU_HEADER_LENGTH + size)
    message.setUint16(0, vcpu)
  }

  #setRange(message: Message, address: number, length: number): void {
    message.setWord(0, address)
    if (this.#generation.wideSizes) message.setWord(8, length)
    else message.setUint16(8, length)
  }
}
