import {
  type DescriptorTable,
  MicrovmiError,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
  type Segment,
} from '@microvmi/core/driver'
import { readSegment, readTable, VALUE_SIZE, writeSegment, writeTable } from '../register-layout.ts'
import type { LivePartition } from './partition.ts'
import { type HypervisorRegister, READ_ONLY, REGISTERS } from './register-names.ts'
import { SuspendedVcpu } from './suspended-vcpu.ts'

/** What core expects of every backend with `registers.read`. */
const ALWAYS: ReadonlySet<RegisterName> = new Set<RegisterName>([
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'rip', 'rflags'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'cr0', 'cr2', 'cr3', 'cr4'] as const),
])

/** Registers of a live partition's vCPUs. A vCPU that runs is suspended for the moment that it takes. */
export class LiveRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName>
  readonly #partition: LivePartition
  readonly #given: readonly HypervisorRegister[]
  readonly #names: Uint32Array
  readonly #values: Uint8Array
  readonly #views: readonly DataView[]

  /** Throws `UNSUPPORTED` where the library does not give what every vCPU has. */
  constructor(partition: LivePartition) {
    this.#partition = partition
    const value = new Uint8Array(VALUE_SIZE)
    this.#given = REGISTERS.filter(({ name }) => partition.readRegisters(0, Uint32Array.of(name), value))
    const given = new Set(this.#given.map(({ register }) => register))
    const missing = [...ALWAYS].filter((register) => !given.has(register))
    if (missing.length > 0) {
      throw new MicrovmiError('UNSUPPORTED', `the library does not give ${missing.join(', ')} of this partition`)
    }
    this.writable = new Set([...given].filter((register) => !READ_ONLY.has(register)))
    this.#names = Uint32Array.from(this.#given, ({ name }) => name)
    this.#values = new Uint8Array(this.#names.length * VALUE_SIZE)
    this.#views = this.#given.map((_, index) => new DataView(this.#values.buffer, index * VALUE_SIZE, VALUE_SIZE))
  }

  read(vcpu: number): Registers {
    const suspended = new SuspendedVcpu(this.#partition, vcpu)
    try {
      this.#readAll(vcpu)
    } finally {
      suspended.end()
    }
    const read: Partial<Record<RegisterName, bigint | Segment | DescriptorTable>> = {}
    this.#given.forEach(({ register, form }, index) => {
      const view = this.#views[index]
      if (view) read[register] = valueIn(view, form)
    })
    // Every name of ALWAYS is among them: the constructor saw to it.
    return { architecture: 'x86-64', ...read } as Registers
  }

  write(vcpu: number, changes: RegisterChanges): void {
    const changed = this.#given.filter(({ register }) => changes[register] !== undefined)
    const names = Uint32Array.from(changed, ({ name }) => name)
    const values = new Uint8Array(names.length * VALUE_SIZE)
    const suspended = new SuspendedVcpu(this.#partition, vcpu)
    try {
      // What a change leaves out of a segment, and what is reserved in it, stays.
      if (!this.#partition.readRegisters(vcpu, names, values)) throw refused(vcpu)
      changed.forEach(({ register }, index) => {
        put(new DataView(values.buffer, index * VALUE_SIZE, VALUE_SIZE), changes[register])
      })
      this.#partition.writeRegisters(vcpu, names, values)
    } finally {
      suspended.end()
    }
  }

  #readAll(vcpu: number): void {
    if (!this.#partition.readRegisters(vcpu, this.#names, this.#values)) throw refused(vcpu)
  }
}

function valueIn(view: DataView, form: HypervisorRegister['form']): bigint | Segment | DescriptorTable {
  if (form === 'segment') return readSegment(view)
  return form === 'table' ? readTable(view, 'hypervisor') : view.getBigUint64(0, true)
}

function put(view: DataView, value: bigint | Segment | DescriptorTable | undefined): void {
  if (typeof value === 'bigint') view.setBigUint64(0, value, true)
  else if (value !== undefined && 'selector' in value) writeSegment(view, value)
  else if (value !== undefined) writeTable(view, 'hypervisor', value)
}

function refused(vcpu: number): MicrovmiError {
  return new MicrovmiError('HYPERVISOR', `the hypervisor refuses registers of vCPU ${vcpu} that it gave before`)
}
