import type { DescriptorTable } from '@microvmi/core/driver'
import { anyRequest, complete, dataOf } from './complete.ts'
import { Fault, GENERAL_PROTECTION } from './exceptions.ts'
import { canonicalLow, linear, upperHalf } from './execute.ts'
import { canonical, uncanonical } from './page-tables.ts'
import type { Processor } from './processor.ts'

const PSEUDO_LENGTH = 10

/** sgdt, sidt, lgdt, lidt (0 to 3): limit in 2 bytes, base in 8 (Intel SDM volume 3A, figure 2-6). */
export function accessTable(processor: Processor, operation: number, register: number): void {
  const table = operation % 2 === 0 ? 'gdt' : 'idt'
  const address = linear(processor.vcpu, register, 0)
  if (operation < 2) store(processor, table, address)
  else load(processor, table, address)
}

function load(processor: Processor, table: 'gdt' | 'idt', address: number): void {
  const { vcpu, mmu } = processor
  const limit = mmu.load16(address)
  const low = mmu.load64(address + 2)
  const base = canonical(canonicalLow(low, mmu.upper))
  complete(processor, 'descriptor', 3, { table, write: true }, anyRequest, (parts) => {
    vcpu[table] = read(dataOf(parts)) ?? { limit, base }
  })
}

function read(data: Uint8Array | undefined): DescriptorTable | undefined {
  if (!data || data.length < PSEUDO_LENGTH) return undefined
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  return { limit: view.getUint16(0, true), base: view.getBigUint64(2, true) }
}

/** Its store may stop of its own, so that it starts again after the answer. */
function store(processor: Processor, table: 'gdt' | 'idt', address: number): void {
  const { vcpu, mmu, platform } = processor
  const occurrence = { kind: 'descriptor', fields: { table, write: false } } as const
  if (!vcpu.pass?.descriptor) {
    const armed = platform.watches.matching('descriptor', anyRequest)
    if (armed.length > 0) {
      platform.hold(vcpu, occurrence, armed, 'repeat', () => {
        vcpu.passing().descriptor = true
      })
    }
  }
  const { limit, base } = read(vcpu.pass?.data) ?? vcpu[table]
  const virtual = uncanonical(base) ?? 0
  mmu.store64(address + 2, virtual % 2 ** 32, upperHalf(virtual))
  mmu.store16(address, limit)
  platform.note(vcpu, occurrence)
  vcpu.rip += 3
}

/** sldt, str, lldt, ltr (0 to 3), by a general register. */
export function taskRegister(processor: Processor, operation: number, register: number): void {
  const { vcpu } = processor
  const table = operation % 2 === 0 ? 'ldt' : 'tr'
  if (operation < 2) {
    complete(processor, 'descriptor', 3, { table, write: false }, anyRequest, () =>
      vcpu.set(register, vcpu[table].selector, 0),
    )
    return
  }
  const selector = vcpu.low(register) & 0xffff
  const base = selector === 0 ? 0n : systemBase(processor, selector)
  complete(processor, 'descriptor', 3, { table, write: true }, anyRequest, () => {
    vcpu[table] = { ...vcpu[table], selector, base }
  })
}

/** The base in a 16-byte descriptor of the GDT (Intel SDM volume 3A, figure 8-4). */
function systemBase({ vcpu, mmu }: Processor, selector: number): bigint {
  const offset = selector & ~7
  if (offset + 15 > vcpu.gdt.limit) throw new Fault(GENERAL_PROTECTION, selector)
  const descriptor = (uncanonical(vcpu.gdt.base) ?? 0) + offset
  const low = mmu.load16(descriptor + 2) + mmu.load8(descriptor + 4) * 2 ** 16 + mmu.load8(descriptor + 7) * 2 ** 24
  return canonical(canonicalLow(low, mmu.load32(descriptor + 8)))
}
