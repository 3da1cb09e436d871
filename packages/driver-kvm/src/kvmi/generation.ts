/** Commands of ours, whatever a generation calls and numbers them. */
export type Command =
  | 'getVersion'
  | 'checkCommand'
  | 'checkEvent'
  | 'getInfo'
  | 'controlVmEvents'
  | 'controlEvents'
  | 'controlCr'
  | 'controlMsr'
  | 'controlSinglestep'
  | 'pauseVcpu'
  | 'getRegisters'
  | 'setRegisters'
  | 'readPhysical'
  | 'writePhysical'
  | 'injectException'
  | 'setPageAccess'
  | 'getMaxGfn'
  | 'createView'
  | 'destroyView'
  | 'switchView'
  | 'changeGfn'

/** Events of the kernel's, whatever a generation numbers them. */
export type EventName =
  | 'unhook'
  | 'createVcpu'
  | 'pause'
  | 'cr'
  | 'msr'
  | 'xsetbv'
  | 'breakpoint'
  | 'hypercall'
  | 'pageFault'
  | 'trap'
  | 'descriptor'
  | 'singlestep'
  | 'cpuid'

/** One generation of the protocol: its numbers, and where its messages differ from the others'. */
export interface Generation {
  /** For people, and for `vm.info`. */
  readonly name: string
  /** Message ids. What is absent does not exist. */
  readonly commands: { readonly [Name in Command]?: number }
  /** Event ids. */
  readonly events: { readonly [Name in EventName]?: number }
  /** The message that carries events of vCPUs. */
  readonly eventMessage: number
  /** The message that carries events of the VM; the same as `eventMessage` where there is one for all. */
  readonly vmEventMessage: number
  /** The message that answers an event. */
  readonly eventReplyMessage: number
  /** Bytes before `struct kvmi_event` (A) or `struct kvmi_vcpu_event` (C) in an event. */
  readonly eventHeaderLength: number
  /** Reading and writing memory takes a size of 64 bits; else of 16. */
  readonly wideSizes: boolean
  /** Pausing takes a `struct kvmi_vcpu_hdr`. */
  readonly pauseHasVcpuHeader: boolean
  /** CONTROL_CR has `enable` before the register. */
  readonly crEnableFirst: boolean
  /** SET_PAGE_ACCESS names a view. */
  readonly pageAccessHasView: boolean
  /** INJECT_EXCEPTION says whether there is an error code. */
  readonly injectionSaysHasError: boolean
  /** Bytes that answer a page fault after the common part. */
  readonly pageFaultReplyLength: number
  /** XSETBV events tell the register's old and new value. */
  readonly xsetbvHasValues: boolean
  /** SINGLESTEP events come only where CONTROL_EVENTS has enabled them. */
  readonly singlestepIsEnabled: boolean
}
