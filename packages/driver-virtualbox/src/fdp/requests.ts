import { type ACCESS, ADDRESS_TYPE, type BREAKPOINT, COMMAND, type RequestLayout } from './layout.ts'

const LONGEST = 64

/** What a breakpoint of the server's is asked for with. */
export interface BreakpointOptions {
  readonly vcpu: number
  readonly type: (typeof BREAKPOINT)[keyof typeof BREAKPOINT]
  /** One or several of ACCESS. */
  readonly access: (typeof ACCESS)[keyof typeof ACCESS] | number
  readonly isPhysical: boolean
  /** An address; for a control register its number, for an MSR its index. */
  readonly address: number
  readonly size: number
}

/** Writes requests into one buffer: what each method returns is valid until the next. */
export class FdpRequests {
  readonly #layout: RequestLayout
  readonly #bytes = new Uint8Array(LONGEST)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #byLength = new Map<number, Uint8Array>()

  constructor(layout: RequestLayout) {
    this.#layout = layout
  }

  simple(command: number): Uint8Array {
    return this.#begin(command, 1)
  }

  ofVcpu(command: number, vcpu: number): Uint8Array {
    const request = this.#begin(command, this.#layout.vcpuLength)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    return request
  }

  readPhysical(address: number, size: number): Uint8Array {
    const { readPhysical } = this.#layout
    const request = this.#begin(COMMAND.readPhysical, readPhysical.length)
    this.#number(readPhysical.address, address)
    this.#view.setUint32(readPhysical.size, size, true)
    return request
  }

  /** The head of a write; the data follow at `writeDataOffset`. */
  writePhysical(address: number, size: number): Uint8Array {
    const { writePhysical } = this.#layout
    const request = this.#begin(COMMAND.writePhysical, writePhysical.length)
    this.#number(writePhysical.address, address)
    this.#view.setUint32(writePhysical.size, size, true)
    return request
  }

  get writeDataOffset(): number {
    return this.#layout.writePhysical.data
  }

  readRegister(vcpu: number, register: number): Uint8Array {
    const { readRegister } = this.#layout
    const request = this.#begin(COMMAND.readRegister, readRegister.length)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#view.setUint16(readRegister.register, register, true)
    return request
  }

  writeRegister(vcpu: number, register: number, value: bigint): Uint8Array {
    const { writeRegister } = this.#layout
    const request = this.#begin(COMMAND.writeRegister, writeRegister.length)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#view.setUint16(writeRegister.register, register, true)
    this.#view.setBigUint64(writeRegister.value, value, true)
    return request
  }

  readMsr(vcpu: number, index: number): Uint8Array {
    const { msr } = this.#layout
    const request = this.#begin(COMMAND.readMsr, msr.readLength)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#number(msr.index, index)
    return request
  }

  writeMsr(vcpu: number, index: number, value: bigint): Uint8Array {
    const { msr } = this.#layout
    const request = this.#begin(COMMAND.writeMsr, msr.length)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#number(msr.index, index)
    this.#view.setBigUint64(msr.value, value, true)
    return request
  }

  virtualToPhysical(vcpu: number, address: bigint): Uint8Array {
    const { virtualToPhysical } = this.#layout
    const request = this.#begin(COMMAND.virtualToPhysical, virtualToPhysical.length)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#view.setBigUint64(virtualToPhysical.address, address, true)
    return request
  }

  setBreakpoint({ vcpu, type, access, isPhysical, address, size }: BreakpointOptions): Uint8Array {
    const { setBreakpoint } = this.#layout
    const request = this.#begin(COMMAND.setBreakpoint, setBreakpoint.length)
    this.#view.setUint32(this.#layout.vcpu, vcpu, true)
    this.#view.setUint16(setBreakpoint.type, type, true)
    // The server chooses the number.
    this.#view.setInt32(setBreakpoint.id, -1, true)
    this.#view.setUint16(setBreakpoint.access, access, true)
    this.#view.setUint16(setBreakpoint.addressType, isPhysical ? ADDRESS_TYPE.physical : ADDRESS_TYPE.virtual, true)
    this.#number(setBreakpoint.address, address)
    this.#number(setBreakpoint.size, size)
    return request
  }

  unsetBreakpoint(id: number): Uint8Array {
    const { unsetBreakpoint } = this.#layout
    const request = this.#begin(COMMAND.unsetBreakpoint, unsetBreakpoint.length)
    this.#view.setInt32(unsetBreakpoint.id, id, true)
    return request
  }

  #begin(command: number, length: number): Uint8Array {
    let request = this.#byLength.get(length)
    if (!request) {
      request = this.#bytes.subarray(0, length)
      this.#byLength.set(length, request)
    }
    request.fill(0)
    request[0] = command
    return request
  }

  /** A 64-bit field from a number, without a bigint. */
  #number(offset: number, value: number): void {
    this.#view.setUint32(offset, value % 2 ** 32, true)
    this.#view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true)
  }
}
