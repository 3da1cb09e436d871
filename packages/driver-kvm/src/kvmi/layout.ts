/**
 * Sizes and offsets that both generations share. Little endian, C's natural alignment; all padding is zero, or the
 * kernel answers -EINVAL.
 */

/** `struct kvmi_msg_hdr`: u16 id, u16 size of what follows, u32 seq. */
export const HEADER_LENGTH = 8
/** KVMI_MSG_SIZE (A), KVMI_MAX_MSG_SIZE (C): no message has more bytes after its header. */
export const MESSAGE_LIMIT = 8184
/** `struct kvmi_error_code`: s32 err, u32 padding. */
export const ERROR_LENGTH = 8
/** `struct kvmi_vcpu_hdr`: u16 vcpu, padding. */
export const VCPU_HEADER_LENGTH = 8

/** The kernel reads and writes memory within one page per command (kvmi.rst, KVMI_VM_READ_PHYSICAL). */
export const PAGE = 4096

/** `struct kvm_regs` (asm/kvm.h): 18 words of 64 bits. */
export const KVM_REGS_LENGTH = 144
/** `struct kvm_sregs` (asm/kvm.h). */
export const KVM_SREGS_LENGTH = 312

/** `struct kvmi_event_arch` (A), `kvmi_vcpu_event_arch` (C), from the start of the event structure. */
export const EVENT = { vcpu: 2, name: 4, mode: 8, view: 10, regs: 16, sregs: 160, msrs: 472, length: 544 } as const
/** `struct kvmi_event_arch`, msrs: words of 64 bits. */
export const EVENT_MSRS = [
  'sysenterCs',
  'sysenterEsp',
  'sysenterEip',
  'efer',
  'star',
  'lstar',
  'cstar',
  'pat',
  'kernelGsBase',
] as const

/** KVMI_EVENT_ACTION_*. */
export const ACTION = { continue: 0, retry: 1, crash: 2 } as const

/** KVMI_DESC_*. */
export const DESCRIPTORS: readonly (undefined | 'idt' | 'gdt' | 'ldt' | 'tr')[] = [undefined, 'idt', 'gdt', 'ldt', 'tr']

/** Errors of commands, as the kernel negates them (asm-generic/errno-base.h, errno.h; linux/kvm_para.h: KVM_E*). */
export const KVM_ERROR = {
  EPERM: 1,
  ENOENT: 2,
  E2BIG: 7,
  EAGAIN: 11,
  ENOMEM: 12,
  EFAULT: 14,
  EBUSY: 16,
  EINVAL: 22,
  EOPNOTSUPP: 95,
  ENOSYS: 1000,
} as const
