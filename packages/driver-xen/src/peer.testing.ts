import { createRequire } from 'node:module'
import { abiOf } from './abi/versions.ts'
import type { Koffi, Libraries } from './library-calls.ts'
import type { PeerDomain } from './peer-domain.testing.ts'
import { allocated, libc, PeerSignal } from './peer-memory.testing.ts'
import { copyUser, loadAll, saveAll } from './peer-vcpus.testing.ts'
import { viewCalls } from './peer-views.testing.ts'
import { ERRNO } from './xen-errors.ts'

const koffi = createRequire(import.meta.url)('koffi') as Koffi
const ENOBUFS = 105
/** XEN_DOMINF_hvm_guest, _paused (domctl.h). */
const [HVM, PAUSED] = [1 << 1, 1 << 3]

/**
 * Xen as the driver sees it through its libraries: mappings, descriptors and the ring's page are real, the domains are
 * the test's. What real Xen does was looked up in its headers or seen in the lab; what was not is not played here.
 */
export class Peer {
  readonly domains: PeerDomain[] = []
  minor = 17
  /** Rights of pages, single steps and views. */
  isIntel = false
  control = 'libxenctrl.so.4.17'
  errno = 0
  /** errno of calls that are to fail, by their names in C. */
  readonly failing = new Map<string, number>()
  readonly released = new PeerSignal()

  #domain(domid: number): PeerDomain | undefined {
    return this.domains.find((one) => one.domid === domid && !one.isDestroyed)
  }

  /** Runs a call on a domain that is there: -1 and errno else. */
  #on(call: string, domid: number, run: (domain: PeerDomain) => number): number {
    const domain = this.#domain(domid)
    this.errno = this.failing.get(call) ?? (domain ? 0 : ERRNO.ESRCH)
    return this.errno === 0 && domain ? run(domain) : -1
  }

  #arm(call: string, what: string) {
    return (_xch: number, domid: number, ...rest: unknown[]): number =>
      this.#on(call, domid, (domain) => {
        const enable = rest.find((one) => typeof one === 'boolean')
        if (enable === true) domain.armed.add(what)
        else domain.armed.delete(what)
        return 0
      })
  }

  /** What AMD's processors do not have fails as it was seen to. */
  #processorCalls() {
    const lacking = (call: string, errno: number) => (_xch: number, domid: number) =>
      this.#on(call, domid, () => {
        this.errno = errno
        return -1
      })
    const calls = viewCalls((call, domid, run) =>
      this.#on(call, domid, ({ views }) =>
        run(views, (errno) => {
          this.errno = errno
          return -1
        }),
      ),
    )
    if (this.isIntel) return calls
    return {
      ...calls,
      get_mem_access: lacking('xc_get_mem_access', ERRNO.EINVAL),
      altp2m_get_domain_state: lacking('xc_altp2m_get_domain_state', ERRNO.EOPNOTSUPP),
    }
  }

  get libraries(): Libraries {
    const unused = (name: string) => () => {
      throw new Error(`${name} is not played`)
    }
    return {
      koffi,
      control: this.control,
      libc,
      xc: {
        interface_open: () => {
          this.errno = this.failing.get('xc_interface_open') ?? 0
          return this.errno === 0 ? 1 : 0
        },
        interface_close: () => 0,
        version: (_xch, command) => (command === 0 ? (4 << 16) | this.minor : 0),
        domain_getinfolist: (_xch, first, count, into) => this.#infos(first, count, into),
        domain_pause: (_xch, domid) =>
          this.#on('xc_domain_pause', domid, (domain) => {
            domain.pauses += 1
            return 0
          }),
        domain_unpause: (_xch, domid) =>
          this.#on('xc_domain_unpause', domid, (domain) => {
            domain.unpause()
            return 0
          }),
        domain_maximum_gpfn: (_xch, domid, into) =>
          this.#on('xc_domain_maximum_gpfn', domid, (domain) => {
            into[0] = BigInt(domain.memory.last + 16)
            return 0
          }),
        maximum_ram_page: (_xch, into) => {
          into[0] = BigInt(Math.max(...this.domains.map(({ memory }) => memory.last)) + 1500)
          return 0
        },
        domain_get_guest_width: (_xch, domid, into) =>
          this.#on('xc_domain_get_guest_width', domid, ({ pv = 64 }) => {
            into[0] = pv / 8
            return 0
          }),
        get_pfn_type_batch: (_xch, domid, count, frames) =>
          this.#on('xc_get_pfn_type_batch', domid, ({ memory }) => {
            const words = new Uint32Array(frames.buffer)
            // XEN_DOMCTL_PFINFO_XTAB, in the upper four of 32 bits: no such frame.
            for (let at = 0; at < count; at++) {
              const gfn = words[2 * at] ?? 0
              words[2 * at] = memory.has(gfn) && !memory.shared.has(gfn) ? 0 : 0xf000_0000
            }
            return 0
          }),
        domain_hvm_getcontext: (_xch, domid, into) =>
          this.#on('xc_domain_hvm_getcontext', domid, (domain) => saveAll(domain, into)),
        domain_hvm_setcontext: (_xch, domid, from) =>
          this.#on('xc_domain_hvm_setcontext', domid, (domain) => loadAll(domain, from)),
        domain_hvm_getcontext_partial: (_xch, domid, code, instance, into, size) =>
          this.#on('xc_domain_hvm_getcontext_partial', domid, ({ vcpus }) => {
            const context = vcpus[instance]?.context
            this.errno = context === undefined || code !== 2 ? ERRNO.ENOENT : size < context.length ? ENOBUFS : 0
            if (context && this.errno === 0) into.set(context)
            return this.errno === 0 ? 0 : -1
          }),
        vcpu_getcontext: (_xch, domid, vcpu, into) =>
          this.#on('xc_vcpu_getcontext', domid, (domain) => copyUser(domain, vcpu, into, false)),
        vcpu_setcontext: (_xch, domid, vcpu, from) =>
          this.#on('xc_vcpu_setcontext', domid, (domain) => copyUser(domain, vcpu, from, true)),
        hvm_param_get: unused('xc_hvm_param_get'),
        monitor_enable: (_xch, domid, port) => {
          const address = this.#on('xc_monitor_enable', domid, (domain) => {
            if (domain.isMonitored) this.errno = ERRNO.EBUSY
            port[0] = 7
            return domain.isMonitored ? -1 : domain.enable()
          })
          return Math.max(address, 0)
        },
        monitor_disable: (_xch, domid) =>
          this.#on('xc_monitor_disable', domid, (domain) => {
            domain.disable()
            return 0
          }),
        monitor_get_capabilities: (_xch, domid, into) =>
          this.#on('xc_monitor_get_capabilities', domid, () => {
            // Single steps are Intel's; I/O ports are there from 4.18 on.
            into[0] = (this.isIntel ? 0x1f7f : 0x1f7b) | (this.minor >= 18 ? 1 << 13 : 0)
            return 0
          }),
        monitor_write_ctrlreg: this.#arm('xc_monitor_write_ctrlreg', 'cr'),
        monitor_mov_to_msr: this.#arm('xc_monitor_mov_to_msr', 'msr'),
        monitor_singlestep: this.#arm('xc_monitor_singlestep', 'singlestep'),
        monitor_software_breakpoint: this.#arm('xc_monitor_software_breakpoint', 'breakpoint'),
        monitor_descriptor_access: this.#arm('xc_monitor_descriptor_access', 'descriptor'),
        monitor_guest_request: this.#arm('xc_monitor_guest_request', 'hypercall'),
        monitor_debug_exceptions: this.#arm('xc_monitor_debug_exceptions', 'debug'),
        monitor_cpuid: this.#arm('xc_monitor_cpuid', 'cpuid'),
        monitor_io: this.#arm('xc_monitor_io', 'io'),
        ...this.#processorCalls(),
        domain_setmaxmem: (_xch, domid, kibibytes) =>
          this.#on('xc_domain_setmaxmem', domid, (domain) => {
            domain.mostPages = kibibytes / 4
            return 0
          }),
        domain_decrease_reservation_exact: (_xch, domid, _count, _order, frames) =>
          this.#on('xc_domain_decrease_reservation_exact', domid, ({ memory }) => {
            memory.remove(Number(frames[0]))
            return 0
          }),
        domain_populate_physmap_exact: (_xch, domid, _count, _order, _flags, frames) =>
          this.#on('xc_domain_populate_physmap_exact', domid, ({ memory, mostPages }) => {
            this.errno = memory.pages < mostPages ? 0 : ERRNO.ENOMEM
            if (this.errno === 0) memory.add(Number(frames[0]))
            return this.errno === 0 ? 0 : -1
          }),
      },
      foreignmemory: {
        open: () => 1,
        close: () => 0,
        map: (_handle, domid, protection, pages, frames, errors) => {
          this.errno = this.failing.get('xenforeignmemory_map') ?? 0
          const domain = this.domains.find((one) => one.domid === domid)
          if (this.errno !== 0 || !domain) return 0
          // The pages of a domain that has gone are missing like others.
          const wanted = domain.isDestroyed ? [] : Array.from(frames.subarray(0, pages), Number)
          return domain.memory.map(wanted, errors, protection, pages)
        },
        unmap: (_handle, address, pages) => libc.munmap(address, pages * 4096),
      },
      evtchn: {
        open: () => 1,
        close: () => 0,
        fd: () => this.#monitored().channel.fd,
        notify: () => {
          this.#monitored().takeResponses()
          return 0
        },
        bind_interdomain: () => 9,
        unbind: () => 0,
        pending: () => (this.#monitored().channel.take() ? 9 : -1),
        unmask: () => 0,
      },
      devicemodel: {
        open: () => 1,
        close: () => 0,
        inject_event: (_handle, domid, vcpu, vector) =>
          this.#on('xendevicemodel_inject_event', domid, ({ injected }) => injected.push({ vcpu, vector })),
      },
      xs: {
        open: () => 1,
        close: () => {},
        read: (_handle, _transaction, path, length) => {
          const name = this.#domain(Number(/^\/local\/domain\/(\d+)\/name$/.exec(path)?.[1]))?.name
          length[0] = name?.length ?? 0
          return name === undefined ? 0 : allocated(name)
        },
        watch: () => true,
        fileno: () => this.released.fd,
        check_watch: () => (this.released.take() ? allocated('@releaseDomain') : 0),
      },
    }
  }

  /** A test has one domain whose monitor is used. */
  #monitored(): PeerDomain {
    const [domain] = this.domains
    if (!domain) throw new Error('there is no domain')
    return domain
  }

  #infos(first: number, count: number, into: Uint8Array): number {
    this.errno = this.failing.get('xc_domain_getinfolist') ?? 0
    if (this.errno !== 0) return -1
    const { domainInfo } = abiOf({ major: 4, minor: this.minor, extra: '' })
    const found = this.domains.filter(({ domid, isDestroyed }) => domid >= first && !isDestroyed).slice(0, count)
    for (const [index, { domid, pauses, memory, mostPages, vcpus, hasDevices, pv }] of found.entries()) {
      const record = new DataView(into.buffer, into.byteOffset + index * domainInfo.length, domainInfo.length)
      record.setUint16(0, domid, true)
      record.setUint32(4, (pv ? 0 : HVM) | (pauses > 0 ? PAUSED : 0), true)
      record.setBigUint64(8, BigInt(memory.pages), true)
      record.setBigUint64(16, BigInt(mostPages), true)
      record.setUint32(68, vcpus.length - 1, true)
      record.setUint8(76, domid)
      record.setUint32(domainInfo.archConfig, hasDevices ? 1 << 8 : 0, true)
    }
    return found.length
  }
}
