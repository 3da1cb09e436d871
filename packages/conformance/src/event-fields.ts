import type { VmBase } from '@microvmi/core'
import { expect, expectEqual, hex } from './expect.ts'
import type { AnyEvent, Stimulus } from './stimulus.ts'

/** Throws unless an event is one that the request of a stimulus asked for, and is whole. */
export function expectFits(event: AnyEvent, { kind, request, provocation }: Stimulus, vm: VmBase): void {
  expectEqual(event.kind, kind, 'the kind of an event')
  const fits = Number.isInteger(event.vcpu) && event.vcpu >= 0 && event.vcpu < vm.vcpuCount
  expect(fits, `an event is of vcpu ${event.vcpu}; there are ${vm.vcpuCount}`)
  expect(['vcpu', 'vm', 'none'].includes(event.stops), `an event stops '${event.stops}'`)
  expectEqual(typeof event.complete, 'boolean', 'the type of complete')
  expectEqual(event.answered, false, 'answered of a new event')
  expectAsked(event, request)
  provocation.check?.(event)
}

/** What of the event's own fields follows from its request. */
function expectAsked(event: AnyEvent, request: Stimulus['request']): void {
  if (event.kind === 'cr' && request.kind === 'cr') {
    expectEqual(event.register, request.register, 'the register of the event')
    if (request.onChange !== false) expect(event.old !== event.new, `${event.register} did not change, and is reported`)
  } else if (event.kind === 'msr' && request.kind === 'msr') {
    expectEqual(event.msr, request.msr, 'the MSR of the event')
  } else if (event.kind === 'breakpoint' && request.kind === 'breakpoint') {
    if ('address' in request) expectEqual(event.address, request.address, 'the address of the event')
  } else if (event.kind === 'watchpoint' && request.kind === 'watchpoint') {
    const touches = event.address < request.address + BigInt(request.length) && event.address + 8n > request.address
    expect(touches, `the access at ${hex(event.address)} is not to what is watched`)
  } else if (event.kind === 'memory' && request.kind === 'memory') {
    const start = request.address - (request.address % 4096)
    const end = Math.ceil((request.address + request.length) / 4096) * 4096
    expect(event.address >= start && event.address < end, `the access at ${hex(event.address)} is to another page`)
    const asked = [...event.access].some((one) => request.access.includes(one))
    expect(asked, `an access of kind ${event.access} is reported, though ${request.access} was asked for`)
  } else if (event.kind === 'singlestep' && request.kind === 'singlestep') {
    if (request.vcpu !== undefined) expectEqual(event.vcpu, request.vcpu, 'the vCPU of the step')
  } else if (event.kind === 'cpuid' && request.kind === 'cpuid') {
    if (request.leaf !== undefined) expectEqual(event.leaf, request.leaf, 'the leaf of the event')
  } else if (event.kind === 'io' && request.kind === 'io') {
    if (request.port !== undefined) expectEqual(event.port, request.port, 'the port of the event')
  } else if (event.kind === 'interrupt' && request.kind === 'interrupt') {
    if (request.vector !== undefined) expectEqual(event.vector, request.vector, 'the vector of the event')
  }
}
