import type { Reply } from '@microvmi/core/driver'
import { complete } from './complete.ts'
import { Fault, GENERAL_PROTECTION, UNDEFINED_OPCODE } from './exceptions.ts'
import { RAX, RCX, RDX } from './instructions.ts'
import { MSR } from './msrs.ts'
import type { Processor } from './processor.ts'
import type { Vcpu } from './vcpu.ts'

const TWO_32 = 2n ** 32n
/** CR0.WP. */
const WRITE_PROTECT = 0x1_0000n

/** mov to a control register. */
export function writeControl(processor: Processor, number: number, value: bigint): void {
  const { vcpu } = processor
  switch (number) {
    case 0:
      writeRegister(processor, 'cr0', value, (written) => {
        // Write protection may have changed.
        if (((vcpu.cr0 ^ written) & WRITE_PROTECT) !== 0n) processor.mmu.flush()
        vcpu.cr0 = written
      })
      break
    case 2:
      vcpu.cr2 = value
      vcpu.rip += 3
      break
    case 3:
      if (value >= 2n ** 52n) throw new Fault(GENERAL_PROTECTION, 0)
      writeRegister(processor, 'cr3', value, (written) => processor.setAddressSpace(written))
      break
    case 4:
      writeRegister(processor, 'cr4', value, (written) => {
        vcpu.cr4 = written
      })
      break
    case 8:
      vcpu.cr8 = value
      vcpu.rip += 3
      break
    default:
      throw new Fault(UNDEFINED_OPCODE)
  }
}

function writeRegister(
  processor: Processor,
  register: 'cr0' | 'cr3' | 'cr4' | 'xcr0',
  value: bigint,
  write: (value: bigint) => void,
): void {
  const old = processor.vcpu[register]
  const changed = old ^ value
  complete(
    processor,
    'cr',
    3,
    { register, old, new: value },
    (request) =>
      request.register === register &&
      (changed !== 0n || request.onChange === false) &&
      (request.mask === undefined || (changed & request.mask) !== 0n),
    (parts) => write(settled(parts, value)),
  )
}

/** wrmsr: the index in ecx, the value in edx and eax. */
export function writeMsr(processor: Processor): void {
  const { vcpu } = processor
  const msr = vcpu.low(RCX)
  const value = fromHalves(vcpu)
  const old = msr === MSR.tsc ? vcpu.tsc : vcpu.msrs.get(msr)
  if (old === undefined) throw new Fault(GENERAL_PROTECTION, 0)
  complete(
    processor,
    'msr',
    2,
    { msr, old, new: value },
    (request) => request.msr === msr && (old !== value || request.onChange === false),
    (parts) => {
      const written = settled(parts, value)
      if (msr === MSR.tsc) vcpu.tscOffset = written - BigInt(vcpu.clock)
      else vcpu.msrs.set(msr, written)
    },
  )
}

/** The value of the reply in place of the guest's. */
function settled(parts: Reply, value: bigint): bigint {
  return parts.value ?? value
}

/** What mov reads from a control register. */
export function controlRegister(vcpu: Vcpu, number: number): bigint {
  const values: Readonly<Record<number, bigint>> = { 0: vcpu.cr0, 2: vcpu.cr2, 3: vcpu.cr3, 4: vcpu.cr4, 8: vcpu.cr8 }
  const value = values[number]
  if (value === undefined) throw new Fault(UNDEFINED_OPCODE)
  return value
}

function fromHalves(vcpu: Vcpu): bigint {
  return BigInt(vcpu.low(RDX)) * TWO_32 + BigInt(vcpu.low(RAX))
}

/** xsetbv: XCR0 is the only one. */
export function writeXcr0(processor: Processor): void {
  const { vcpu } = processor
  if (vcpu.low(RCX) !== 0) throw new Fault(GENERAL_PROTECTION, 0)
  writeRegister(processor, 'xcr0', fromHalves(vcpu), (value) => {
    vcpu.xcr0 = value
  })
}

/** Ends an instruction whose result is in edx and eax. */
export function inHalves(vcpu: Vcpu, value: bigint, length: number): void {
  vcpu.setWord(RAX, BigInt.asUintN(32, value))
  vcpu.setWord(RDX, value / TWO_32)
  vcpu.rip += length
}
