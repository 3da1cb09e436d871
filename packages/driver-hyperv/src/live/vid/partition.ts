import { type Detail, type MemoryLayout, MicrovmiError } from '@microvmi/core/driver'
import { lastError } from '../../native.ts'
import { VALUE_SIZE } from '../../register-layout.ts'
import { waitUntil } from '../deadline.ts'
import type { LivePartition } from '../partition.ts'
import { isSuspended, setSuspended } from '../suspended-vcpu.ts'
import { countVcpus } from '../vcpus.ts'
import { failed } from './failed.ts'
import { layoutOf, type MemoryBlock, pageCount, ramBlock } from './memory-blocks.ts'
import type { VidCalls } from './native.ts'
import { closeHandle, type Handle, hasEnded } from './windows.ts'

const PAGE = 4096

/** Where LiveCloudKd looks for memory blocks: their handles are small numbers. */
const GREATEST_BLOCK = 0x4ff

/** Registers of one call. */
const BATCH = 32

interface Opened {
  readonly calls: VidCalls
  readonly partition: Handle
  readonly worker: Handle
  readonly id: string
  readonly name: string
  readonly path: string
  readonly timeout: number
}

/** A partition through vid.dll. */
export class VidPartition implements LivePartition {
  readonly name: string
  readonly id: string
  readonly vcpuCount: number
  readonly details: Readonly<Record<string, Detail>>
  readonly #calls: VidCalls
  readonly #partition: Handle
  readonly #worker: Handle
  readonly #timeout: number
  readonly #ram: MemoryBlock
  readonly #layout: MemoryLayout | string
  #isClosed = false

  /** @param opened with handles that are this object's once it is made */
  constructor({ calls, partition, worker, id, name, path, timeout }: Opened) {
    this.id = id
    this.name = name
    this.#calls = calls
    this.#partition = partition
    this.#worker = worker
    this.#timeout = timeout
    this.#ram = ramBlock(this.#blocks())
    this.#layout = layoutOf(this.#ram)
    this.vcpuCount = countVcpus((vcpu, names, values) => this.#read(vcpu, names, values))
    this.details = { library: path, memory: `memory block ${this.#ram.handle}`, pause: 'suspend registers' }
  }

  layout(): MemoryLayout | string {
    this.#look()
    return this.#layout
  }

  readPages(page: number, into: Uint8Array): boolean {
    this.#look()
    const pages = into.length / PAGE
    const isWithin = page + pages <= this.#ram.pages
    return isWithin && this.#calls.VidReadMemoryBlockPageRange(...this.#range(page, into)) !== 0
  }

  write(address: number, from: Uint8Array): void {
    const first = Math.floor(address / PAGE)
    const end = Math.ceil((address + from.length) / PAGE)
    if (address % PAGE === 0 && from.length % PAGE === 0) {
      this.#writePages(first, from)
      return
    }
    // Whole pages are all that vid.dll writes: what the guest writes beside ours meanwhile would be lost.
    this.#whileSuspended(() => {
      const pages = new Uint8Array((end - first) * PAGE)
      if (!this.readPages(first, pages)) this.#fail('VidReadMemoryBlockPageRange')
      pages.set(from, address - first * PAGE)
      this.#writePages(first, pages)
    })
  }

  readRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): boolean {
    this.#look()
    return this.#read(vcpu, names, values)
  }

  writeRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): void {
    this.#look()
    for (let at = 0; at < names.length; at += BATCH) {
      const some = names.slice(at, at + BATCH)
      const theirs = values.slice(at * VALUE_SIZE, (at + some.length) * VALUE_SIZE)
      if (this.#calls.VidSetVirtualProcessorState(this.#partition, vcpu, some, some.length, theirs) === 0) {
        this.#fail('VidSetVirtualProcessorState')
      }
    }
  }

  suspend(): void {
    const ours: number[] = []
    try {
      for (const vcpu of this.#vcpus()) {
        if (isSuspended(this, vcpu)) continue
        setSuspended(this, vcpu, true)
        ours.push(vcpu)
      }
      waitUntil(() => this.isSuspended(), this.#timeout, 'the partition did not suspend')
    } catch (error) {
      // A pause that fails leaves the guest running.
      for (const vcpu of ours) if (!hasEnded(this.#worker)) setSuspended(this, vcpu, false)
      throw error
    }
  }

  resume(): void {
    for (const vcpu of this.#vcpus()) setSuspended(this, vcpu, false)
  }

  isSuspended(): boolean {
    return this.#vcpus().every((vcpu) => isSuspended(this, vcpu))
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    closeHandle(this.#partition)
    closeHandle(this.#worker)
  }

  #vcpus(): number[] {
    return Array.from({ length: this.vcpuCount }, (_, vcpu) => vcpu)
  }

  #whileSuspended(act: () => void): void {
    const isOurs = !this.isSuspended()
    if (isOurs) this.suspend()
    try {
      act()
    } finally {
      if (isOurs) this.resume()
    }
  }

  #writePages(first: number, pages: Uint8Array): void {
    this.#look()
    if (this.#calls.VidWriteMemoryBlockPageRange(...this.#range(first, pages)) === 0) {
      this.#fail('VidWriteMemoryBlockPageRange')
    }
  }

  /** What reading and writing pages take alike. */
  #range(page: number, buffer: Uint8Array) {
    return [this.#partition, this.#ram.handle, page, buffer.length / PAGE, buffer, buffer.length] as const
  }

  #read(vcpu: number, names: Uint32Array, values: Uint8Array): boolean {
    for (let at = 0; at < names.length; at += BATCH) {
      const some = names.slice(at, at + BATCH)
      const theirs = new Uint8Array(some.length * VALUE_SIZE)
      if (this.#calls.VidGetVirtualProcessorState(this.#partition, vcpu, some, some.length, theirs) === 0) return false
      values.set(theirs, at * VALUE_SIZE)
    }
    return true
  }

  /** The memory blocks that answer. Throws `UNSUPPORTED` where Windows refuses all of them. */
  #blocks(): MemoryBlock[] {
    const total = new BigUint64Array(1)
    const valid = new BigUint64Array(1)
    const blocks: MemoryBlock[] = []
    let error = 0
    for (let handle = 1; handle <= GREATEST_BLOCK; handle += 1) {
      if (this.#calls.VidQueryMemoryBlockMbpCount(this.#partition, handle, total, valid) === 0) error ||= lastError()
      else blocks.push({ handle, pages: pageCount(total[0] ?? 0n), valid: pageCount(valid[0] ?? 0n) })
    }
    if (blocks.length === 0) throw failed('VidQueryMemoryBlockMbpCount', error)
    return blocks
  }

  /** Throws `VM_GONE` when the worker process has ended: our handle would keep the partition as it was. */
  #look(): void {
    if (hasEnded(this.#worker)) throw new MicrovmiError('VM_GONE', `the VM '${this.name || this.id}' has ended`)
  }

  #fail(call: string): never {
    const error = lastError()
    this.#look()
    throw failed(call, error)
  }
}
