import { type Detail, MicrovmiError } from '@microvmi/core/driver'
import { win32Error } from '../../errors.ts'
import { clearLastError, lastError } from '../../native.ts'
import { VALUE_SIZE } from '../../register-layout.ts'
import { waitUntil } from '../deadline.ts'
import type { LivePartition } from '../partition.ts'
import { RIP } from '../register-names.ts'
import { isSuspended } from '../suspended-vcpu.ts'
import { countVcpus } from '../vcpus.ts'
import type { HvlibConfig } from './config.ts'
import { failed } from './failed.ts'
import { type HvlibCalls, INFORMATION, RESUME_VM, SUSPEND_VM, VTL0, WRITE_SPEC_REGISTER } from './native.ts'

const PAGE = 4096

/** Reads between two looks whether the partition is still there. */
const READS_PER_LOOK = 256

/** HvlibEnumPublic.h, READ_MEMORY_METHOD and SUSPEND_RESUME_METHOD. */
const READ_METHODS = ['unsupported', 'hvmm.sys', 'hypercalls (slow)', "this host's own memory"] as const
const SUSPEND_METHODS = ['unsupported', 'PowerShell', 'suspend registers'] as const

/** A partition as the library numbers it. */
export interface HvlibEntry {
  readonly handle: bigint
  readonly name: string
  readonly id: string
  readonly type: string
}

interface Opened {
  readonly calls: HvlibCalls
  readonly entry: HvlibEntry
  readonly config: HvlibConfig
  readonly timeout: number
  readonly path: string
  readonly isListed: () => boolean
}

/** A partition through hvlib.dll. */
export class HvlibPartition implements LivePartition {
  readonly name: string
  readonly id: string
  readonly vcpuCount: number
  readonly details: Readonly<Record<string, Detail>>
  readonly #calls: HvlibCalls
  readonly #handle: bigint
  readonly #isListed: () => boolean
  readonly #timeout: number
  readonly #readMethod: number
  readonly #writeMethod: number
  readonly #suspendMethod: number
  readonly #value = new Uint8Array(VALUE_SIZE)
  #readsLeft = READS_PER_LOOK
  #isClosed = false

  constructor({ calls, entry, config, timeout, path, isListed }: Opened) {
    this.name = entry.name
    this.id = entry.id
    this.#calls = calls
    this.#handle = entry.handle
    this.#isListed = isListed
    this.#timeout = timeout
    this.#readMethod = config.method('readMethod') ?? noMethod('read')
    this.#writeMethod = config.method('writeMethod') ?? noMethod('write')
    this.#suspendMethod = config.method('suspendMethod') ?? WRITE_SPEC_REGISTER
    this.vcpuCount = countVcpus((vcpu, names, values) => this.#read(vcpu, names, values))
    this.details = {
      library: path,
      type: entry.type,
      memory: READ_METHODS[this.#readMethod] ?? '',
      pause: SUSPEND_METHODS[this.#suspendMethod] ?? '',
    }
  }

  layout(): string {
    return (
      'hvlib.dll tells where memory ends, but not where its holes are: read what you know to be there, or save the VM ' +
      'and open its state with the driver hypervSaved'
    )
  }

  readPages(page: number, into: Uint8Array): boolean {
    this.#readsLeft -= 1
    if (this.#readsLeft <= 0) this.#look()
    const { SdkReadPhysicalMemory } = this.#calls
    if (SdkReadPhysicalMemory(this.#handle, page * PAGE, into.length, into, this.#readMethod) !== 0) return true
    this.#look()
    return false
  }

  write(address: number, from: Uint8Array): void {
    const { SdkWritePhysicalMemory } = this.#calls
    clearLastError()
    if (SdkWritePhysicalMemory(this.#handle, address, from.length, from, this.#writeMethod) !== 0) return
    this.#fail('SdkWritePhysicalMemory')
  }

  readRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): boolean {
    if (this.#read(vcpu, names, values)) return true
    this.#look()
    return false
  }

  writeRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): void {
    for (const [index, name] of names.entries()) {
      this.#value.set(values.subarray(index * VALUE_SIZE, (index + 1) * VALUE_SIZE))
      clearLastError()
      if (this.#calls.SdkWriteVpRegister(this.#handle, vcpu, VTL0, name, this.#value) === 0) {
        this.#fail('SdkWriteVpRegister')
      }
    }
  }

  suspend(): void {
    this.#control('suspend', SUSPEND_VM)
  }

  resume(): void {
    this.#control('resume', RESUME_VM)
  }

  /** By what the library knows, or by the registers: another program may have suspended them. */
  isSuspended(): boolean {
    this.#look()
    if (this.#data(INFORMATION.isVmSuspended) !== 0) return true
    for (let vcpu = 0; vcpu < this.vcpuCount; vcpu += 1) if (!isSuspended(this, vcpu)) return false
    return true
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#calls.SdkClosePartition(this.#handle)
  }

  #control(what: 'suspend' | 'resume', action: number): void {
    const { SdkControlVmState } = this.#calls
    const manageWorker = this.#data(INFORMATION.isNeedVmwpSuspend) === 0 ? 0 : 1
    clearLastError()
    if (SdkControlVmState(this.#handle, action, this.#suspendMethod, manageWorker) === 0)
      this.#fail('SdkControlVmState')
    const wanted = action === SUSPEND_VM
    try {
      waitUntil(() => this.isSuspended() === wanted, this.#timeout, `the partition did not ${what}`)
    } catch (error) {
      // A pause that fails leaves the guest running.
      if (wanted) SdkControlVmState(this.#handle, RESUME_VM, this.#suspendMethod, manageWorker)
      throw error
    }
  }

  /** A BOOLEAN or number that the library tells. */
  #data(what: number): number {
    return Number(BigInt.asUintN(8, BigInt(this.#calls.SdkGetData2(this.#handle, what))))
  }

  #read(vcpu: number, names: Uint32Array, values: Uint8Array): boolean {
    for (const [index, name] of names.entries()) {
      this.#value.fill(0)
      if (this.#calls.SdkReadVpRegister(this.#handle, vcpu, VTL0, name, this.#value) === 0) return false
      values.set(this.#value, index * VALUE_SIZE)
    }
    return true
  }

  /** Throws `VM_GONE` where the partition is no longer there: a vCPU that has no rip, and no listing. */
  #look(): void {
    this.#readsLeft = READS_PER_LOOK
    if (this.#calls.SdkReadVpRegister(this.#handle, 0, VTL0, RIP, this.#value) !== 0 || this.#isListed()) return
    throw new MicrovmiError('VM_GONE', `the partition '${this.name}' (${this.id}) has ended`)
  }

  #fail(call: string): never {
    const error = lastError()
    this.#look()
    throw error === 0 ? failed(call, error) : win32Error(call, error)
  }
}

function noMethod(what: string): never {
  throw new MicrovmiError('UNSUPPORTED', `hvlib.dll has no method to ${what} memory on this version of Windows`)
}
