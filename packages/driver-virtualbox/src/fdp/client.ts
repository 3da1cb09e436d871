import { MicrovmiError } from '@microvmi/core/driver'
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
  readonly #write: { bytes: Uint8Array; readonly offset: number }

  constructor(channel: FdpChannel, layout: RequestLayout) {
    this.channel = channel
    this.#requests = new FdpRequests(layout)
    this.#write = { bytes: this.#answer, offset: this.#requests.writeDataOffset }
  }

  /** Fills `into`, of 1 byte to 10 MiB less one; false where a byte of the range is not guest memory. */
  readPhysical(address: number, into: Uint8Array): boolean {
    const { length, status } = this.channel.exchange(
      this.#requests.readPhysical(address, into.length),
      into.length,
      into,
    )
    if (status === 0) return false
    if (length !== into.length) throw this.#unexpected('a read', length)
    return true
  }

  /** Writes at most 1 MiB; false where a byte of the range is not guest memory, and nothing was written. */
  writePhysical(address: number, from: Uint8Array): boolean {
    this.#write.bytes = from
    const { length } = this.channel.exchange(
      this.#requests.writePhysical(address, from.length),
      1,
      this.#answer,
      this.#write,
    )
    if (length !== 1) throw this.#unexpected('a write', length)
    return this.#answer[0] !== 0
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

  #flag(request: Uint8Array): boolean {
    return this.#byte(request) !== 0
  }

  #byte(request: Uint8Array): number {
    this.#exchange(request, 1)
    return this.#view.getUint8(0)
  }

  #exchange(request: Uint8Array, expected: number): void {
    const { length } = this.channel.exchange(request, expected, this.#answer)
    if (length !== expected) throw this.#unexpected(`command ${request[0]}`, length)
  }

  #unexpected(what: string, length: number): MicrovmiError {
    return new MicrovmiError('PROTOCOL', `${this.channel.name}: ${length} bytes in reply to ${what}`)
  }

  #refused(what: string): MicrovmiError {
    return new MicrovmiError('HYPERVISOR', `${this.channel.name}: the FDP server refuses ${what}`)
  }
}
