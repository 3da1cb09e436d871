import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'
import { KNOWN_MINORS } from './abi/versions.ts'
import type { Koffi, Libraries } from './library-calls.ts'

/** Finds and binds them. Throws `DRIVER_UNAVAILABLE`, saying why, where there are none. */
export function load(): Libraries {
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
      maximum_ram_page: xc('int xc_maximum_ram_page(uint64 xch, void *max_mfn)'),
      domain_get_guest_width: xc('int xc_domain_get_guest_width(uint64 xch, uint32 domid, void *guest_width)'),
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
      monitor_io: whenCalled(() => xc('int xc_monitor_io(uint64 xch, uint32 domid, bool enable)')),
      get_mem_access: xc('int xc_get_mem_access(uint64 xch, uint32 domid, uint64 pfn, void *access)'),
      set_mem_access_multi: xc(
        'int xc_set_mem_access_multi(uint64 xch, uint32 domid, void *access, void *pages, uint32 nr)',
      ),
      altp2m_get_domain_state: xc('int xc_altp2m_get_domain_state(uint64 xch, uint32 dom, void *state)'),
      altp2m_set_domain_state: xc('int xc_altp2m_set_domain_state(uint64 xch, uint32 dom, bool state)'),
      altp2m_create_view: xc('int xc_altp2m_create_view(uint64 xch, uint32 domid, int default_access, void *view_id)'),
      altp2m_destroy_view: xc('int xc_altp2m_destroy_view(uint64 xch, uint32 domid, uint16 view_id)'),
      altp2m_switch_to_view: xc('int xc_altp2m_switch_to_view(uint64 xch, uint32 domid, uint16 view_id)'),
      altp2m_set_mem_access_multi: xc(
        'int xc_altp2m_set_mem_access_multi(uint64 xch, uint32 domid, uint16 view_id, void *access, void *gfns, uint32 nr)',
      ),
      altp2m_change_gfn: xc(
        'int xc_altp2m_change_gfn(uint64 xch, uint32 domid, uint16 view_id, uint64 old_gfn, uint64 new_gfn)',
      ),
      altp2m_get_vcpu_p2m_idx: whenCalled(() =>
        xc('int xc_altp2m_get_vcpu_p2m_idx(uint64 xch, uint32 domid, uint32 vcpuid, void *p2midx)'),
      ),
      domain_setmaxmem: xc('int xc_domain_setmaxmem(uint64 xch, uint32 domid, uint64 max_memkb)'),
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

/** A function that not every version has: it is looked up when it is first called. */
function whenCalled<Arguments extends unknown[]>(
  bind: () => (...words: Arguments) => number,
): (...words: Arguments) => number {
  let bound: ReturnType<typeof bind> | undefined
  return (...words) => {
    bound ??= bind()
    return bound(...words)
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
