import { MicrovmiError } from '@microvmi/core/driver'
import type { Payload } from './canal.ts'
import type { FdpChannel } from './channel.ts'
import { COMMAND, type FdpRegister, REGISTER, type RequestLayout } from './layout.ts'
import { type BreakpointOptions, FdpRequests } from './requests.ts'

/** A VM of VirtualBox 5.2 has 32 vCPUs at most (include/VBox/param.h, VMM_MAX_CPU_COUNT is 64). */
const MOST_VCPUS = 64

/** The server's commands as methods. */
export class FdpClient {
  readonly channel: FdpChannel
  readonly #requests: FdpRequests
  readonly #answer = new Uint8Array(8)
  readonly #view = new DataView(this.#answer.buffer)
  readonly #payload: { bytes: Uint8Array; readonly offset: number }

  constructor(channel: FdpChannel, layout: RequestLayout) {
    this.channel = channel
    this.#requests = new FdpRequests(layout)
    this.#payload = { bytes: this.#answer, offset: this.#requests.writeDataOffset }
  }

  /** Fills `into`, of 1 byte to 10 MiB less one; false where the server cannot read all of it. */
  readPhysical(address: number, into: Uint8Array): boolean {
    const { channel } = this
    const { length, status } = channel.exchange(this.#requests.readPhysical(address, into.length), into.length, into)
    if (status === 1 && length === into.length) return true
    if (status === 0 && length === 1) return false
    throw this.#unexpected('a read', length, status)
  }

  /** Writes at most 1 MiB; false where the server cannot write all of it. */
  writePhysical(address: number, from: Uint8Array): boolean {
    this.#payload.bytes = from
    return this.#flag(this.#requests.writePhysical(address, from.length), this.#payload)
  }

  readRegister(vcpu: number, register: FdpRegister): bigint {
    return this.#word(this.#requests.readRegister(vcpu, REGISTER[register]))
  }

  writeRegister(vcpu: number, register: FdpRegister, value: bigint): boolean {
    return this.#flag(this.#requests.writeRegister(vcpu, REGISTER[register], value))
  }

  /** What the server says for an MSR that there is not is 0. */
  readMsr(vcpu: number, index: number): bigint {
    return this.#word(this.#requests.readMsr(vcpu, index))
  }

  writeMsr(vcpu: number, index: number, value: bigint): boolean {
    return this.#flag(this.#requests.writeMsr(vcpu, index, value))
  }

  /** In the address space that the vCPU is in. The server says 0 for what is not mapped, and so does this. */
  virtualToPhysical(vcpu: number, address: bigint): bigint {
    return this.#word(this.#requests.virtualToPhysical(vcpu, address))
  }

  memorySize(): bigint {
    return this.#word(this.#requests.simple(COMMAND.memorySize))
  }

  vcpuCount(): number {
    this.#exchange(this.#requests.simple(COMMAND.vcpuCount), 4)
    const count = this.#view.getUint32(0, true)
    if (count >= 1 && count <= MOST_VCPUS) return count
    throw new MicrovmiError('PROTOCOL', `${this.channel.name}: ${count} vCPUs: is this an FDP server?`)
  }

  /** Returns when every vCPU has stopped. */
  pause(): void {
    if (!this.#flag(this.#requests.simple(COMMAND.pause))) throw this.#refused('to pause the VM')
  }

  resume(): void {
    if (!this.#flag(this.#requests.simple(COMMAND.resume))) throw this.#refused('to resume the VM')
  }

  /** The vCPU, which is paused, executes one instruction, no breakpoint in force. */
  singleStep(vcpu: number): void {
    if (!this.#flag(this.#requests.ofVcpu(COMMAND.singleStep, vcpu))) throw this.#refused(`to step vCPU ${vcpu}`)
  }

  /** STATE bits of the whole VM. */
  state(): number {
    return this.#byte(this.#requests.ofVcpu(COMMAND.state, 0))
  }

  /** STATE bits of one vCPU. */
  vcpuState(vcpu: number): number {
    return this.#byte(this.#requests.ofVcpu(COMMAND.vcpuState, vcpu))
  }

  /** The new breakpoint's number, or -1. The VM is paused. */
  setBreakpoint(options: BreakpointOptions): number {
    this.#exchange(this.#requests.setBreakpoint(options), 4)
    return this.#view.getInt32(0, true)
  }

  /** The VM is paused: else the server does nothing, and says that it did. */
  unsetBreakpoint(id: number): void {
    if (!this.#flag(this.#requests.unsetBreakpoint(id))) throw this.#refused(`to remove breakpoint ${id}`)
  }

  #word(request: Uint8Array): bigint {
    this.#exchange(request, 8)
    return this.#view.getBigUint64(0, true)
  }

  #flag(request: Uint8Array, payload?: Payload): boolean {
    const flag = this.#byte(request, payload)
    if (flag <= 1) return flag === 1
    throw new MicrovmiError(
      'PROTOCOL',
      `${this.channel.name}: ${flag} in reply to command ${request[0]}: 0 or 1 is right`,
    )
  }

  #byte(request: Uint8Array, payload?: Payload): number {
    this.#exchange(request, 1, payload)
    return this.#view.getUint8(0)
  }

  /** The server sets the status of reads of memory only: of everything else it is 1. */
  #exchange(request: Uint8Array, expected: number, payload?: Payload): void {
    const { length, status } = this.channel.exchange(request, expected, this.#answer, payload)
    if (length !== expected || status !== 1) throw this.#unexpected(`command ${request[0]}`, length, status)
  }

  #unexpected(what: string, length: number, status: number): MicrovmiError {
    return new MicrovmiError(
      'PROTOCOL',
      `${this.channel.name}: ${length} bytes with status ${status} in reply to ${what}`,
    )
  }

  #refused(what: string): MicrovmiError {
    return new MicrovmiError('HYPERVISOR', `${this.channel.name}: the FDP server refuses ${what}`)
  }
}
