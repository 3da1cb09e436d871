import { MicrovmiError } from '@microvmi/core/driver'
import { VALUE_SIZE } from '../register-layout.ts'
import type { LivePartition } from './partition.ts'
import { EXPLICIT_SUSPEND, REGISTERS } from './register-names.ts'

const PAGE = 4096

/** A partition of this process's memory: page n is all n, and each register its own number times the vCPU's. */
export class FakePartition implements LivePartition {
  readonly name = 'fake'
  readonly id = '0x1'
  readonly vcpuCount = 2
  readonly details = {}
  readonly holes: ReadonlySet<number>
  /** By vCPU, then by name. */
  readonly registers: readonly Map<number, Uint8Array>[]
  readonly pages: Uint8Array[]
  /** What was called. */
  readonly calls: string[] = []
  /** What `writeRegisters` throws for a name. */
  refused: number | undefined
  closed = false

  constructor(pages: number, holes: Iterable<number> = []) {
    this.holes = new Set(holes)
    this.pages = Array.from({ length: pages }, (_, page) => new Uint8Array(PAGE).fill(page))
    this.registers = [0, 1].map((vcpu) => {
      const all = REGISTERS.map(({ name }, index) => [name, integerValue(BigInt((vcpu + 1) * (index + 1)))] as const)
      return new Map([...all, [EXPLICIT_SUSPEND, new Uint8Array(VALUE_SIZE)]])
    })
  }

  layout(): ReturnType<LivePartition['layout']> {
    return 'a fake does not tell'
  }

  readPages(page: number, into: Uint8Array): boolean {
    for (let index = 0; index < into.length / PAGE; index += 1) {
      const bytes = this.pages[page + index]
      if (!bytes || this.holes.has(page + index)) return false
      into.set(bytes, index * PAGE)
    }
    return true
  }

  write(address: number, from: Uint8Array): void {
    this.calls.push(`write ${address} ${from.length}`)
    for (const [index, byte] of from.entries()) {
      const page = this.pages[Math.floor((address + index) / PAGE)]
      if (page) page[(address + index) % PAGE] = byte
    }
  }

  readRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): boolean {
    for (const [index, name] of names.entries()) {
      const value = this.registers[vcpu]?.get(name)
      if (!value) return false
      values.set(value, index * VALUE_SIZE)
    }
    return true
  }

  writeRegisters(vcpu: number, names: Uint32Array, values: Uint8Array): void {
    for (const [index, name] of names.entries()) {
      if (name === this.refused) throw new MicrovmiError('HYPERVISOR', 'refused')
      this.calls.push(`${vcpu}: 0x${name.toString(16)} = ${values[index * VALUE_SIZE]}`)
      this.registers[vcpu]?.set(name, values.slice(index * VALUE_SIZE, (index + 1) * VALUE_SIZE))
    }
  }

  suspend(): void {
    this.calls.push('suspend')
    for (const registers of this.registers) registers.set(EXPLICIT_SUSPEND, integerValue(1n))
  }

  resume(): void {
    this.calls.push('resume')
    for (const registers of this.registers) registers.set(EXPLICIT_SUSPEND, integerValue(0n))
  }

  isSuspended(): boolean {
    return this.registers.every((registers) => registers.get(EXPLICIT_SUSPEND)?.[0] === 1)
  }

  close(): void {
    this.closed = true
  }
}

function integerValue(integer: bigint): Uint8Array {
  const value = new Uint8Array(VALUE_SIZE)
  new DataView(value.buffer).setBigUint64(0, integer, true)
  return value
}
