import type { Vm } from '@microvmi/core'
import type { GuestFacts } from '@microvmi/lab-xen'
import { AddressSpace } from '@microvmi/paging'

/** Where Linux has all of its memory, without KASLR and with four levels (Documentation/arch/x86/x86_64/mm.rst). */
export const DIRECT_MAP = 0xffff_8880_0000_0000n

/** A PV guest's facts with machine addresses, in place of those that the guest itself has its memory by. */
export function machineAddresses(vm: Vm<'memory.read' | 'registers.read'>, facts: GuestFacts): GuestFacts {
  const space = AddressSpace.of(vm, 0)
  const machine = (address: number): number => {
    const found = space.translate(DIRECT_MAP + BigInt(address))
    if (!found) throw new Error(`the guest has nothing at its own address 0x${address.toString(16)}`)
    return found.physicalAddress
  }
  return {
    ...facts,
    known: { ...facts.known, physical: facts.known.physical.map(machine) },
    scratch: facts.scratch.map(machine),
    control: machine(facts.control),
    marks: facts.marks.map((mark) => ({ ...mark, physical: machine(mark.physical) })),
    ram: [],
  }
}
