import {
  type DescriptorTable,
  MicrovmiError,
  type RegisterBackend,
  type RegisterName,
  type Registers,
  type Segment,
} from '@microvmi/core/driver'
import { addressOf } from '../native.ts'
import { readSegment, readTable, VALUE_SIZE } from '../register-layout.ts'
import { type Generation, OLD_VALUE } from './generation.ts'
import { ARCHITECTURE_X64, NON_PAGED, PAGING_MODES, type Provider } from './provider.ts'
import { OLD_INTEGERS, OLD_SEGMENTS, OLD_TABLES, REGISTERS } from './register-ids.ts'

type Values = Partial<Record<RegisterName, bigint | Segment | DescriptorTable>>

const CR0_PAGING = 1n << 31n

/** The registers of a saved state's vCPUs. */
export class SavedRegisters implements RegisterBackend {
  readonly #provider: Provider
  readonly #state: bigint
  readonly #valuesOf: (vcpu: number) => Values

  constructor(provider: Provider, state: bigint, generation: Generation) {
    this.#provider = provider
    this.#state = state
    this.#valuesOf = generation === 'current' ? currentReader(provider, state) : oldReader(provider, state)
  }

  read(vcpu: number): Registers {
    // Every register that core expects is in both lists.
    return { architecture: 'x86-64', ...this.#valuesOf(vcpu) } as Registers
  }

  /**
   * The paging mode of a vCPU. Throws `PROTOCOL` where CR0 contradicts it: then the library's registers are not what
   * they are taken for.
   */
  pagingMode(vcpu: number): string {
    const mode = new Int32Array(1)
    this.#provider.call('GetPagingMode', this.#state, vcpu, mode)
    const [number = 0] = mode
    const name = PAGING_MODES[number]
    const { cr0 } = this.read(vcpu)
    const isPaged = (cr0 & CR0_PAGING) !== 0n
    if (name === undefined || number === 0 || isPaged !== number > NON_PAGED) {
      throw new MicrovmiError(
        'PROTOCOL',
        `vCPU ${vcpu} has CR0 0x${cr0.toString(16)} and the paging mode ${name ?? number}: ${this.#provider.path} is a ` +
          'version that is not known here: use the one of Windows SDK 10.0.18362 or newer',
      )
    }
    return name
  }
}

/** GetRegisterValue with a number and a union of 16 bytes. */
function currentReader(provider: Provider, state: bigint): (vcpu: number) => Values {
  const value = new Uint8Array(VALUE_SIZE)
  const view = new DataView(value.buffer)
  return (vcpu) => {
    const values: Values = {}
    for (const { register, id, form } of REGISTERS) {
      value.fill(0)
      provider.call('GetRegisterValue', state, vcpu, id, value)
      if (form === 'segment') values[register] = readSegment(view)
      else values[register] = form === 'table' ? readTable(view, 'saved') : view.getBigUint64(0, true)
    }
    return values
  }
}

/** GetRegisterValue with one structure, for a number of 64 bits. */
function oldReader(provider: Provider, state: bigint): (vcpu: number) => Values {
  const structure = new Uint8Array(OLD_VALUE.size)
  const view = new DataView(structure.buffer)
  const address = addressOf(structure)
  const integer = (vcpu: number, id: number) => {
    view.setInt32(OLD_VALUE.architecture, ARCHITECTURE_X64, true)
    view.setBigUint64(OLD_VALUE.value, 0n, true)
    view.setUint32(OLD_VALUE.id, id, true)
    provider.call('GetRegisterValue', state, vcpu, address, null)
    return view.getBigUint64(OLD_VALUE.value, true)
  }
  return (vcpu) => {
    const values: Values = {}
    for (const { register, id } of OLD_INTEGERS) values[register] = integer(vcpu, id)
    for (const { register, selector, base } of OLD_SEGMENTS) {
      values[register] = {
        selector: Number(integer(vcpu, selector) & 0xffffn),
        base: base === undefined ? undefined : integer(vcpu, base),
        limit: undefined,
        attributes: undefined,
      }
    }
    for (const { register, base, limit } of OLD_TABLES) {
      values[register] = { base: integer(vcpu, base), limit: Number(integer(vcpu, limit) & 0xffffn) }
    }
    return values
  }
}
