import { MicrovmiError } from '@microvmi/core/driver'
import { VALUE_SIZE } from '../register-layout.ts'
import type { LivePartition } from './partition.ts'
import { EXPLICIT_SUSPEND } from './register-names.ts'

const NAMES = Uint32Array.of(EXPLICIT_SUSPEND)

/** Whether a vCPU is suspended by its register for that. */
export function isSuspended(partition: LivePartition, vcpu: number): boolean {
  return ((suspendValue(partition, vcpu)[0] ?? 0) & 1) !== 0
}

/** Suspends a vCPU, or lets it go on. */
export function setSuspended(partition: LivePartition, vcpu: number, suspended: boolean): void {
  const value = new Uint8Array(VALUE_SIZE)
  value[0] = suspended ? 1 : 0
  partition.writeRegisters(vcpu, NAMES, value)
}

/** A vCPU that does not run from here to `end`; one that was suspended before stays so. */
export class SuspendedVcpu {
  readonly #partition: LivePartition
  readonly #vcpu: number
  readonly #isOurs: boolean

  constructor(partition: LivePartition, vcpu: number) {
    this.#partition = partition
    this.#vcpu = vcpu
    this.#isOurs = !isSuspended(partition, vcpu)
    if (this.#isOurs) setSuspended(partition, vcpu, true)
  }

  end(): void {
    if (this.#isOurs) setSuspended(this.#partition, this.#vcpu, false)
  }
}

function suspendValue(partition: LivePartition, vcpu: number): Uint8Array {
  const value = new Uint8Array(VALUE_SIZE)
  if (!partition.readRegisters(vcpu, NAMES, value)) {
    throw new MicrovmiError('HYPERVISOR', `the hypervisor does not tell whether vCPU ${vcpu} is suspended`)
  }
  return value
}
