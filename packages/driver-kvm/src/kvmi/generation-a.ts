import type { Generation } from './generation.ts'

/**
 * The generation of kernels 5.0 (`kvmi-v6`) and 5.4 (`kvmi-v7`), and of libkvmi. Numbers: libkvmi bc80de9,
 * include/linux/kvmi.h, the two enums of message and event ids.
 */
export const GENERATION_A: Generation = {
  name: 'A (kernel 5.4)',
  commands: {
    getVersion: 2,
    checkCommand: 3,
    checkEvent: 4,
    getInfo: 5,
    pauseVcpu: 7,
    controlVmEvents: 8,
    controlEvents: 9,
    controlCr: 10,
    controlMsr: 11,
    getRegisters: 13,
    setRegisters: 14,
    readPhysical: 17,
    writePhysical: 18,
    injectException: 19,
    setPageAccess: 21,
    getMaxGfn: 29,
    switchView: 32,
    createView: 43,
    destroyView: 44,
    changeGfn: 60,
    controlSinglestep: 63,
  },
  events: {
    unhook: 0,
    cr: 1,
    msr: 2,
    xsetbv: 3,
    breakpoint: 4,
    hypercall: 5,
    pageFault: 6,
    trap: 7,
    descriptor: 8,
    createVcpu: 9,
    pause: 10,
    singlestep: 11,
    cpuid: 13,
  },
  // KVMI_EVENT, KVMI_EVENT_REPLY
  eventMessage: 1,
  vmEventMessage: 1,
  eventReplyMessage: 0,
  eventHeaderLength: 0,
  // struct kvmi_read_physical, kvmi_write_physical
  wideSizes: true,
  // struct kvmi_pause_vcpu follows a kvmi_vcpu_hdr
  pauseHasVcpuHeader: true,
  // include/linux/x86_64/asm/kvmi.h: struct kvmi_control_cr
  crEnableFirst: true,
  // struct kvmi_set_page_access
  pageAccessHasView: true,
  // struct kvmi_inject_exception
  injectionSaysHasError: false,
  // struct kvmi_event_pf_reply
  pageFaultReplyLength: 272,
  // No struct for KVMI_EVENT_XSETBV
  xsetbvHasValues: false,
  // Documentation/virt/kvm/kvmi.rst of that kernel: KVMI_EVENT_SINGLESTEP
  singlestepIsEnabled: true,
}

/** CONTROL_CMD_RESPONSE: generation A has it, B (v8, v9) has not; both answer a version of 8 bytes. */
export const CONTROL_CMD_RESPONSE = 27

/**
 * The same with the first kernel, 5.0. Differences: libkvmi, branch `kvmi-v6`, include/linux/kvmi.h (the ids end at
 * 29, `struct kvmi_inject_exception` has `has_error`).
 */
export const GENERATION_A_5_0: Generation = {
  ...GENERATION_A,
  name: 'A (kernel 5.0)',
  commands: upTo(GENERATION_A.commands, 29),
  events: upTo(GENERATION_A.events, 11),
  injectionSaysHasError: true,
}

function upTo(ids: Readonly<Record<string, number>>, last: number): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(ids).filter(([, id]) => id <= last))
}
