import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'
import { KNOWN_MINORS } from './abi/versions.ts'

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
    set_mem_access(xch: number, domid: number, access: number, first: number, count: number): number
    get_mem_access(xch: number, domid: number, gfn: number, into: Uint32Array): number
    domain_debug_control(xch: number, domid: number, op: number, vcpu: number): number
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

let loaded: Libraries | undefined

/** Loads Xen's libraries on first use. Throws `DRIVER_UNAVAILABLE`, saying why, where there are none. */
export function libraries(): Libraries {
  loaded ??= load()
  return loaded
}

/** errno of the call just made; it says nothing after a call that succeeded. */
export function errno(): number {
  return libraries().koffi.errno()
}

function load(): Libraries {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw unavailable(`needs a dom0 of x86-64 Linux, this is ${process.platform} on ${process.arch}`)
  }
  let koffi: Koffi
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi
  } catch (error) {
    throw unavailable('koffi could not be loaded: is it installed?', error)
  }
  const open = (names: readonly string[]) => openFirst(koffi, names)
  // Sonames: tools/libs/*/Makefile of Xen; libxenctrl has Xen's version.
  const control = open([...KNOWN_MINORS.map((minor) => `libxenctrl.so.4.${minor}`), 'libxenctrl.so'])
  const foreign = open(['libxenforeignmemory.so.1', 'libxenforeignmemory.so'])
  const evtchn = open(['libxenevtchn.so.1', 'libxenevtchn.so'])
  const store = open(['libxenstore.so.4', 'libxenstore.so.3.0', 'libxenstore.so'])
  const model = open(['libxendevicemodel.so.1', 'libxendevicemodel.so'])
  const libc = koffi.load('libc.so.6')
  const xc = (prototype: string) => control.library.func(prototype)
  return {
    koffi,
    control: control.name,
    libc: {
      free: libc.func('void free(uint64 address)'),
      mmap: libc.func('uint64 mmap(uint64 address, size_t length, int protection, int flags, int fd, int64 offset)'),
      munmap: libc.func('int munmap(uint64 address, size_t length)'),
    },
    xc: {
      interface_open: xc('uint64 xc_interface_open(uint64 logger, uint64 dombuild, uint flags)'),
      interface_close: xc('int xc_interface_close(uint64 xch)'),
      version: xc('int xc_version(uint64 xch, int cmd, void *arg)'),
      domain_getinfolist: xc('int xc_domain_getinfolist(uint64 xch, uint32 first, uint max, void *info)'),
      domain_pause: xc('int xc_domain_pause(uint64 xch, uint32 domid)'),
      domain_unpause: xc('int xc_domain_unpause(uint64 xch, uint32 domid)'),
      domain_maximum_gpfn: xc('int xc_domain_maximum_gpfn(uint64 xch, uint32 domid, void *gpfns)'),
      get_pfn_type_batch: xc('int xc_get_pfn_type_batch(uint64 xch, uint32 dom, uint num, void *frames)'),
      domain_hvm_getcontext: xc('int xc_domain_hvm_getcontext(uint64 xch, uint32 domid, void *context, uint32 size)'),
      domain_hvm_setcontext: xc('int xc_domain_hvm_setcontext(uint64 xch, uint32 domid, void *context, uint32 size)'),
      domain_hvm_getcontext_partial: xc(
        'int xc_domain_hvm_getcontext_partial(uint64 xch, uint32 domid, uint16 typecode, uint16 instance, void *context, uint32 size)',
      ),
      vcpu_getcontext: xc('int xc_vcpu_getcontext(uint64 xch, uint32 domid, uint32 vcpu, void *context)'),
      vcpu_setcontext: xc('int xc_vcpu_setcontext(uint64 xch, uint32 domid, uint32 vcpu, void *context)'),
      hvm_param_get: xc('int xc_hvm_param_get(uint64 xch, uint32 dom, uint32 param, void *value)'),
      monitor_enable: xc('uint64 xc_monitor_enable(uint64 xch, uint32 domid, void *port)'),
      monitor_disable: xc('int xc_monitor_disable(uint64 xch, uint32 domid)'),
      monitor_get_capabilities: xc('int xc_monitor_get_capabilities(uint64 xch, uint32 domid, void *capabilities)'),
      monitor_write_ctrlreg: xc(
        'int xc_monitor_write_ctrlreg(uint64 xch, uint32 domid, uint16 index, bool enable, bool sync, uint64 bitmask, bool onchangeonly)',
      ),
      monitor_mov_to_msr: xc(
        'int xc_monitor_mov_to_msr(uint64 xch, uint32 domid, uint32 msr, bool enable, bool onchangeonly)',
      ),
      monitor_singlestep: xc('int xc_monitor_singlestep(uint64 xch, uint32 domid, bool enable)'),
      monitor_software_breakpoint: xc('int xc_monitor_software_breakpoint(uint64 xch, uint32 domid, bool enable)'),
      monitor_descriptor_access: xc('int xc_monitor_descriptor_access(uint64 xch, uint32 domid, bool enable)'),
      monitor_guest_request: xc(
        'int xc_monitor_guest_request(uint64 xch, uint32 domid, bool enable, bool sync, bool allow_userspace)',
      ),
      monitor_debug_exceptions: xc('int xc_monitor_debug_exceptions(uint64 xch, uint32 domid, bool enable, bool sync)'),
      monitor_cpuid: xc('int xc_monitor_cpuid(uint64 xch, uint32 domid, bool enable)'),
      set_mem_access: xc('int xc_set_mem_access(uint64 xch, uint32 domid, int access, uint64 first, uint32 nr)'),
      get_mem_access: xc('int xc_get_mem_access(uint64 xch, uint32 domid, uint64 pfn, void *access)'),
      domain_debug_control: xc('int xc_domain_debug_control(uint64 xch, uint32 domid, uint32 sop, uint32 vcpu)'),
      domain_decrease_reservation_exact: xc(
        'int xc_domain_decrease_reservation_exact(uint64 xch, uint32 domid, ulong count, uint order, void *frames)',
      ),
      domain_populate_physmap_exact: xc(
        'int xc_domain_populate_physmap_exact(uint64 xch, uint32 domid, ulong count, uint order, uint flags, void *frames)',
      ),
    },
    foreignmemory: {
      open: foreign.library.func('uint64 xenforeignmemory_open(uint64 logger, uint flags)'),
      close: foreign.library.func('int xenforeignmemory_close(uint64 handle)'),
      map: foreign.library.func(
        'uint64 xenforeignmemory_map(uint64 handle, uint32 dom, int protection, size_t pages, void *frames, void *errors)',
      ),
      unmap: foreign.library.func('int xenforeignmemory_unmap(uint64 handle, uint64 address, size_t pages)'),
    },
    evtchn: {
      open: evtchn.library.func('uint64 xenevtchn_open(uint64 logger, uint flags)'),
      close: evtchn.library.func('int xenevtchn_close(uint64 handle)'),
      fd: evtchn.library.func('int xenevtchn_fd(uint64 handle)'),
      notify: evtchn.library.func('int xenevtchn_notify(uint64 handle, uint32 port)'),
      bind_interdomain: evtchn.library.func(
        'int xenevtchn_bind_interdomain(uint64 handle, uint32 domid, uint32 remote_port)',
      ),
      unbind: evtchn.library.func('int xenevtchn_unbind(uint64 handle, uint32 port)'),
      pending: evtchn.library.func('int xenevtchn_pending(uint64 handle)'),
      unmask: evtchn.library.func('int xenevtchn_unmask(uint64 handle, uint32 port)'),
    },
    devicemodel: {
      open: model.library.func('uint64 xendevicemodel_open(uint64 logger, uint flags)'),
      close: model.library.func('int xendevicemodel_close(uint64 handle)'),
      inject_event: model.library.func(
        'int xendevicemodel_inject_event(uint64 handle, uint16 domid, int vcpu, uint8 vector, uint8 type, uint32 error_code, uint8 length, uint64 extra)',
      ),
    },
    xs: {
      open: store.library.func('uint64 xs_open(ulong flags)'),
      close: store.library.func('void xs_close(uint64 handle)'),
      read: store.library.func('uint64 xs_read(uint64 handle, uint32 transaction, str path, void *length)'),
      watch: store.library.func('bool xs_watch(uint64 handle, str path, str token)'),
      fileno: store.library.func('int xs_fileno(uint64 handle)'),
      check_watch: store.library.func('uint64 xs_check_watch(uint64 handle)'),
    },
  }
}

/** The first of these that is installed. */
function openFirst(koffi: Koffi, names: readonly string[]): { name: string; library: ReturnType<Koffi['load']> } {
  let failure: unknown
  for (const name of names) {
    try {
      return { name, library: koffi.load(name) }
    } catch (error) {
      failure = error
    }
  }
  const isXen = existsSync('/proc/xen') || existsSync('/sys/hypervisor/type')
  const advice = isXen
    ? 'Install the Xen tools (on Debian xen-utils-common, libxenmisc and libxenstore).'
    : 'This is no Xen host.'
  throw unavailable(`none of ${names.join(', ')} could be loaded. ${advice}`, failure)
}

function unavailable(reason: string, cause?: unknown): MicrovmiError {
  return new MicrovmiError('DRIVER_UNAVAILABLE', reason, cause === undefined ? undefined : { cause })
}
