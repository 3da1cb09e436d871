import type { Generation } from './generation.ts'

/** Message and event ids of the VM: include/uapi/linux/kvmi.h, KVMI_VM_MESSAGE_ID, KVMI_VM_EVENT_ID. */
const ofVm = (id: number): number => id * 2
/** Message and event ids of a vCPU: KVMI_VCPU_MESSAGE_ID, KVMI_VCPU_EVENT_ID. */
const ofVcpu = (id: number): number => id * 2 + 1

/** v12, kernel 5.15. Numbers: include/uapi/linux/kvmi.h of that series, the enums of message and event ids. */
export const GENERATION_C: Generation = {
  name: 'C (v12, kernel 5.15)',
  commands: {
    getVersion: ofVm(1),
    checkCommand: ofVm(2),
    checkEvent: ofVm(3),
    getInfo: ofVm(4),
    controlVmEvents: ofVm(5),
    readPhysical: ofVm(6),
    writePhysical: ofVm(7),
    pauseVcpu: ofVm(8),
    setPageAccess: ofVm(10),
    controlEvents: ofVcpu(2),
    getRegisters: ofVcpu(3),
    setRegisters: ofVcpu(4),
    controlCr: ofVcpu(6),
    injectException: ofVcpu(7),
    controlMsr: ofVcpu(12),
    controlSinglestep: ofVcpu(13),
  },
  events: {
    unhook: ofVm(0),
    pause: ofVcpu(0),
    hypercall: ofVcpu(1),
    breakpoint: ofVcpu(2),
    cr: ofVcpu(3),
    trap: ofVcpu(4),
    xsetbv: ofVcpu(5),
    descriptor: ofVcpu(6),
    msr: ofVcpu(7),
    pageFault: ofVcpu(8),
    singlestep: ofVcpu(9),
  },
  // KVMI_VCPU_EVENT, which is its own answer, and KVMI_VM_EVENT
  eventMessage: ofVcpu(0),
  vmEventMessage: ofVm(0),
  eventReplyMessage: ofVcpu(0),
  // struct kvmi_event_hdr
  eventHeaderLength: 8,
  // struct kvmi_vm_read_physical, kvmi_vm_write_physical
  wideSizes: false,
  // struct kvmi_vm_pause_vcpu
  pauseHasVcpuHeader: false,
  // arch/x86/include/uapi/asm/kvmi.h: struct kvmi_vcpu_control_cr
  crEnableFirst: false,
  // struct kvmi_vm_set_page_access
  pageAccessHasView: false,
  // struct kvmi_vcpu_inject_exception
  injectionSaysHasError: false,
  // KVMI_VCPU_EVENT_PF has no reply of its own
  pageFaultReplyLength: 0,
  // struct kvmi_vcpu_event_xsetbv
  xsetbvHasValues: true,
  // kvmi.rst, KVMI_VCPU_CONTROL_EVENTS: PAUSE, SINGLESTEP and TRAP need not be enabled
  singlestepIsEnabled: false,
}

/** v10 and v11, kernel 5.10: the same but for one more message of the VM, which moves another. */
export const GENERATION_C_5_10: Generation = {
  ...GENERATION_C,
  name: 'C (v10 or v11, kernel 5.10)',
  commands: { ...GENERATION_C.commands, getMaxGfn: ofVm(10), setPageAccess: ofVm(11) },
}
