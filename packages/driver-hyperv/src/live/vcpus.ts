import { MicrovmiError } from '@microvmi/core/driver'
import { VALUE_SIZE } from '../register-layout.ts'
import { RIP } from './register-names.ts'

/** The most vCPUs that a VM of Hyper-V has (Microsoft, "Plan for Hyper-V scalability in Windows Server"). */
const MOST_VCPUS = 2048

/** How many vCPUs there are: the libraries tell it only by which vCPU's registers they read. */
export function countVcpus(read: (vcpu: number, names: Uint32Array, values: Uint8Array) => boolean): number {
  const names = Uint32Array.of(RIP)
  const value = new Uint8Array(VALUE_SIZE)
  let count = 0
  while (count < MOST_VCPUS && read(count, names, value)) count += 1
  if (count > 0) return count
  throw new MicrovmiError(
    'UNSUPPORTED',
    "not even the first vCPU's rip can be read: this version of Windows refuses it, or the guest is no x64 one",
  )
}
