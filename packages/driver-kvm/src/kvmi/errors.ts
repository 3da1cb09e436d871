import { MicrovmiError } from '@microvmi/core/driver'
import { KVM_ERROR } from './layout.ts'

/** The error for a command that the kernel refused. `error` is as it came: negative. */
export function kernelError(error: number, what: string): MicrovmiError {
  const cause = { call: what, errno: -error }
  switch (-error) {
    case KVM_ERROR.EPERM:
      return new MicrovmiError('DENIED', `QEMU does not allow KVMi this: ${what}`, { cause })
    case KVM_ERROR.EAGAIN:
      return new MicrovmiError('BUSY', `${what}: the vCPU cannot be introspected yet; try again`, { cause })
    case KVM_ERROR.EBUSY:
      return new MicrovmiError('BUSY', `${what}: the kernel is busy with an earlier one, or something else has it`, {
        cause,
      })
    case KVM_ERROR.EOPNOTSUPP:
    case KVM_ERROR.ENOSYS:
      return new MicrovmiError('UNSUPPORTED', `${what}: this kernel or processor cannot do it`, { cause })
    default:
      return new MicrovmiError('HYPERVISOR', `KVMi refused (error ${error}): ${what}`, { cause })
  }
}

/** Throws unless the kernel did it. */
export function expectDone(error: number, what: string): void {
  if (error !== 0) throw kernelError(error, what)
}

/**
 * The page is in no slot that the guest may write: ENOENT (virt/kvm/introspection/kvmi.c, kvmi_cmd_read_physical), in
 * older kernels EINVAL, which is also the answer to a read across pages: there are none of ours.
 */
export function isNoMemory(error: number): boolean {
  return -error === KVM_ERROR.ENOENT || -error === KVM_ERROR.EINVAL || -error === KVM_ERROR.EFAULT
}
