export type Koffi = typeof import('koffi')
/** A handle that watches a descriptor on the event loop. */
export type Watch = ReturnType<Koffi['node']['poll']>
/** An address in this process: below 2^53 on x86-64 Linux, so that a number carries it exactly. */
type Address = number | bigint

/** The functions of Xen's libraries that are used, with all pointers as addresses. Prototypes: xenctrl.h and its like. */
export interface Libraries {
  readonly koffi: Koffi
  /** The soname that libxenctrl was found under. */
  readonly control: string
  readonly libc: {
    free(address: Address): void
    mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): Address
    munmap(address: number, length: number): number
  }
  readonly xc: {
    interface_open(logger: number, dombuild: number, flags: number): Address
    interface_close(xch: number): number
    version(xch: number, command: number, into: Uint8Array | null): number
    domain_getinfolist(xch: number, first: number, count: number, into: Uint8Array): number
    domain_pause(xch: number, domid: number): number
    domain_unpause(xch: number, domid: number): number
    domain_maximum_gpfn(xch: number, domid: number, into: BigUint64Array): number
    maximum_ram_page(xch: number, into: BigUint64Array): number
    domain_get_guest_width(xch: number, domid: number, into: Uint32Array): number
    get_pfn_type_batch(xch: number, domid: number, count: number, frames: BigUint64Array): number
    domain_hvm_getcontext(xch: number, domid: number, into: Uint8Array | null, size: number): number
    domain_hvm_setcontext(xch: number, domid: number, from: Uint8Array, size: number): number
    domain_hvm_getcontext_partial(
      xch: number,
      domid: number,
      typecode: number,
      instance: number,
      into: Uint8Array,
      size: number,
    ): number
    vcpu_getcontext(xch: number, domid: number, vcpu: number, into: Uint8Array): number
    vcpu_setcontext(xch: number, domid: number, vcpu: number, from: Uint8Array): number
    hvm_param_get(xch: number, domid: number, param: number, into: BigUint64Array): number
    monitor_enable(xch: number, domid: number, port: Uint32Array): Address
    monitor_disable(xch: number, domid: number): number
    monitor_get_capabilities(xch: number, domid: number, into: Uint32Array): number
    monitor_write_ctrlreg(
      xch: number,
      domid: number,
      index: number,
      enable: boolean,
      sync: boolean,
      mask: bigint,
      onchangeonly: boolean,
    ): number
    monitor_mov_to_msr(xch: number, domid: number, msr: number, enable: boolean, onchangeonly: boolean): number
    monitor_singlestep(xch: number, domid: number, enable: boolean): number
    monitor_software_breakpoint(xch: number, domid: number, enable: boolean): number
    monitor_descriptor_access(xch: number, domid: number, enable: boolean): number
    monitor_guest_request(xch: number, domid: number, enable: boolean, sync: boolean, allowUserspace: boolean): number
    monitor_debug_exceptions(xch: number, domid: number, enable: boolean, sync: boolean): number
    monitor_cpuid(xch: number, domid: number, enable: boolean): number
    monitor_io(xch: number, domid: number, enable: boolean): number
    get_mem_access(xch: number, domid: number, gfn: number, into: Uint32Array): number
    set_mem_access_multi(xch: number, domid: number, access: Uint8Array, frames: BigUint64Array, count: number): number
    domain_debug_control(xch: number, domid: number, op: number, vcpu: number): number
    altp2m_get_domain_state(xch: number, domid: number, into: Uint8Array): number
    altp2m_set_domain_state(xch: number, domid: number, state: boolean): number
    altp2m_create_view(xch: number, domid: number, access: number, into: Uint16Array): number
    altp2m_destroy_view(xch: number, domid: number, view: number): number
    altp2m_switch_to_view(xch: number, domid: number, view: number): number
    altp2m_set_mem_access_multi(
      xch: number,
      domid: number,
      view: number,
      access: Uint8Array,
      frames: BigUint64Array,
      count: number,
    ): number
    altp2m_change_gfn(xch: number, domid: number, view: number, from: bigint, to: bigint): number
    /** From Xen 4.13 on. */
    altp2m_get_vcpu_p2m_idx(xch: number, domid: number, vcpu: number, into: Uint16Array): number
    domain_setmaxmem(xch: number, domid: number, kibibytes: number): number
    domain_decrease_reservation_exact(
      xch: number,
      domid: number,
      count: number,
      order: number,
      frames: BigUint64Array,
    ): number
    domain_populate_physmap_exact(
      xch: number,
      domid: number,
      count: number,
      order: number,
      flags: number,
      frames: BigUint64Array,
    ): number
  }
  readonly foreignmemory: {
    open(logger: number, flags: number): Address
    close(handle: number): number
    map(
      handle: number,
      domid: number,
      protection: number,
      pages: number,
      frames: BigUint64Array,
      errors: Int32Array,
    ): Address
    unmap(handle: number, address: number, pages: number): number
  }
  readonly evtchn: {
    open(logger: number, flags: number): Address
    close(handle: number): number
    fd(handle: number): number
    notify(handle: number, port: number): number
    bind_interdomain(handle: number, domid: number, remotePort: number): number
    unbind(handle: number, port: number): number
    pending(handle: number): number
    unmask(handle: number, port: number): number
  }
  readonly devicemodel: {
    open(logger: number, flags: number): Address
    close(handle: number): number
    inject_event(
      handle: number,
      domid: number,
      vcpu: number,
      vector: number,
      type: number,
      errorCode: number,
      length: number,
      extra: bigint,
    ): number
  }
  readonly xs: {
    open(flags: number): Address
    close(handle: number): void
    read(handle: number, transaction: number, path: string, length: Uint32Array): Address
    watch(handle: number, path: string, token: string): boolean
    fileno(handle: number): number
    check_watch(handle: number): Address
  }
}
