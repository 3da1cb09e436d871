import { badArgument, type Reply } from '@microvmi/core/driver'
import { dataOf } from './complete.ts'
import { BREAKPOINT } from './exceptions.ts'
import { decode, lengthOf } from './instructions.ts'
import type { Processor } from './processor.ts'
import { checkRegisters, writeRegisters } from './registers.ts'
import type { Stop } from './vcpu.ts'

/**
 * Lets a vCPU go on after its event, as the reply says.
 *
 * An instruction that completes with the answer (a write, CPUID, a port) does so first; then registers change, then
 * the view, then comes an injection. One that is repeated (a breakpoint, a guarded page) is after all of these.
 *
 * Throws `BAD_ARGUMENT` for what the guest cannot do; then it has gone on as if unwatched.
 */
export function applyReply(processor: Processor, parts: Reply): void {
  const { vcpu } = processor
  const { stop } = vcpu
  if (!stop) return
  vcpu.stop = undefined
  try {
    check(processor, stop, parts)
  } catch (error) {
    apply(processor, stop, {})
    throw error
  }
  apply(processor, stop, parts)
}

function check({ vcpu, platform }: Processor, { event }: Stop, parts: Reply): void {
  if (parts.registers) checkRegisters(parts.registers)
  if (parts.view !== undefined) platform.views.check(parts.view)
  if (typeof parts.step === 'object') platform.views.check(parts.step.view)
  if (event.kind === 'cr' && event.fields.register === 'cr3' && (parts.value ?? 0n) >= 2n ** 52n) {
    throw badArgument('cr3 holds an address of at most 52 bits')
  }
  const instruction = instructionOf(parts)
  for (const bytes of [instruction, dataOf(parts)]) {
    if (bytes !== undefined && !(bytes instanceof Uint8Array)) throw badArgument('what is emulated is a Uint8Array')
  }
  const decoded = instruction && decode(instruction)
  if (instruction && !(decoded && lengthOf(decoded) <= instruction.length)) {
    throw badArgument(`no whole instruction is in the ${instruction.length} bytes for vcpu ${vcpu.number}`)
  }
}

function apply(processor: Processor, stop: Stop, parts: Reply): void {
  const { vcpu } = processor
  const instruction = instructionOf(parts)
  // Somebody has sent the vCPU elsewhere while it waited: what it was about to do is dropped.
  const moved = vcpu.rip !== stop.rip
  if (stop.manner === 'complete') {
    if (instruction) vcpu.passing().instruction = instruction
    else if (!moved) stop.finish(parts)
  }
  if (parts.registers) {
    writeRegisters(vcpu, parts.registers)
    processor.resync()
  }
  if (parts.view !== undefined) processor.setView(parts.view)
  if (stop.manner === 'repeat') {
    if (vcpu.rip === stop.rip) repeat(processor, stop, parts, instruction)
    else vcpu.pass = undefined
  } else if (parts.inject) {
    vcpu.injections.push(parts.inject)
  }
  if (parts.step) {
    // Behind the step it returns to the view that it would be in without.
    vcpu.step = { view: vcpu.view }
    if (parts.step !== true) processor.setView(parts.step.view)
  }
  vcpu.attention = true
}

function repeat(processor: Processor, stop: Stop, parts: Reply, instruction: Uint8Array | undefined): void {
  const { vcpu } = processor
  const { kind } = stop.event
  const { inject } = parts
  if (kind === 'int3' && inject?.type === 'exception' && inject.vector === BREAKPOINT) {
    // The guest's own exception, delivered by hand.
    stop.finish(parts)
    return
  }
  if (inject) vcpu.injections.push(inject)
  if (parts.deny) {
    processor.skip()
    return
  }
  // An injection comes before the instruction, and would use its pass up. Only breakpoints have a flag for that.
  if (inject && kind !== 'breakpoint') return
  stop.finish(parts)
  if (instruction) vcpu.passing().instruction = instruction
  const data = dataOf(parts)
  if (data) vcpu.passing().data = data
}

function instructionOf({ emulate }: Reply): Uint8Array | undefined {
  return typeof emulate === 'object' && 'instruction' in emulate ? emulate.instruction : undefined
}
