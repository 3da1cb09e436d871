import { existsSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { type Abi, abiOf } from './abi/versions.ts'
import { type DomainInfo, parseDomainInfo } from './domain-info.ts'
import { libraries } from './libraries.ts'
import type { Libraries } from './library-calls.ts'
import { failed } from './xen-errors.ts'

/** XENVER_version and XENVER_extraversion (version.h). */
const VERSION = 0
const EXTRA_VERSION = 1
const EXTRA_LENGTH = 16
/** Domains that one hypercall tells of. */
const BATCH = 64

/** A connection to the hypervisor: the control interface and the xenstore. */
export class Xen {
  readonly libraries: Libraries
  readonly abi: Abi
  /** Such as `Xen 4.17.3`. */
  readonly version: string
  readonly #control: number
  readonly #store: number
  readonly #info: Uint8Array
  #isOpen = true

  private constructor() {
    const all = libraries()
    this.libraries = all
    if (!existsSync('/dev/xen/privcmd') && !existsSync('/proc/xen/privcmd')) {
      throw new MicrovmiError(
        'DRIVER_UNAVAILABLE',
        'there is no /dev/xen/privcmd: run this in the dom0 of a Xen host (modprobe xen-privcmd)',
      )
    }
    this.#control = Number(all.xc.interface_open(0, 0, 0))
    if (this.#control === 0) throw asUnavailable(failed('xc_interface_open', 'the control interface cannot be opened'))
    this.#store = Number(all.xs.open(0))
    try {
      if (this.#store === 0) throw failed('xs_open', 'the xenstore cannot be opened: does xenstored run?')
      const number = all.xc.version(this.#control, VERSION, null)
      if (number < 0) throw failed('xc_version', 'Xen does not tell its version')
      const extra = new Uint8Array(EXTRA_LENGTH)
      all.xc.version(this.#control, EXTRA_VERSION, extra)
      const version = { major: number >>> 16, minor: number & 0xffff, extra: textOf(extra) }
      this.version = `Xen ${version.major}.${version.minor}${version.extra}`
      this.abi = abiOf(version)
      const named = /\.so\.(4\.\d+)$/.exec(all.control)?.[1]
      if (named !== undefined && named !== this.abi.xen) {
        const message = `this is ${this.version}, and libxenctrl is of ${named}: install the libraries of the Xen that runs`
        throw new MicrovmiError('DRIVER_UNAVAILABLE', message)
      }
      this.#info = new Uint8Array(BATCH * this.abi.domainInfo.length)
    } catch (error) {
      this.close()
      throw asUnavailable(error)
    }
  }

  /** Throws `DRIVER_UNAVAILABLE` with what is missing where this is no dom0, or its Xen is not known. */
  static open(): Xen {
    return new Xen()
  }

  get handle(): number {
    return this.#control
  }

  /** Every domain but dom0. */
  domains(): DomainInfo[] {
    const domains: DomainInfo[] = []
    for (let first = 1; ; ) {
      const batch = this.#domainsFrom(first, BATCH)
      domains.push(...batch)
      const last = batch.at(-1)
      if (last === undefined || batch.length < BATCH) return domains
      first = last.domid + 1
    }
  }

  /** What Xen tells of a domain now; `undefined` where there is none of that number. */
  domain(domid: number): DomainInfo | undefined {
    const [info] = this.#domainsFrom(domid, 1)
    return info?.domid === domid ? info : undefined
  }

  /** Bits of a PV domain's addresses, as its kernel was loaded: 32 or 64. `undefined` where it has gone. */
  addressBitsOf(domid: number): number | undefined {
    const width = new Uint32Array(1)
    if (this.libraries.xc.domain_get_guest_width(this.#control, domid, width) >= 0) return (width[0] ?? 0) * 8
    const error = failed('xc_domain_get_guest_width', `domain ${domid}`)
    if (error.code === 'VM_GONE') return undefined
    throw error
  }

  /** A domain's name, which only the xenstore knows. */
  nameOf(domid: number): string {
    return this.readStore(`/local/domain/${domid}/name`) ?? String(domid)
  }

  /** A value of the xenstore. */
  readStore(path: string): string | undefined {
    const { xs, libc, koffi } = this.libraries
    const length = new Uint32Array(1)
    const address = Number(xs.read(this.#store, 0, path, length))
    if (address === 0) return undefined
    try {
      return textOf(new Uint8Array(koffi.view(address, length[0] ?? 0)).slice())
    } finally {
      libc.free(address)
    }
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    if (this.#store !== undefined && this.#store !== 0) this.libraries.xs.close(this.#store)
    this.libraries.xc.interface_close(this.#control)
  }

  #domainsFrom(first: number, count: number): DomainInfo[] {
    const { length } = this.abi.domainInfo
    const found = this.libraries.xc.domain_getinfolist(this.#control, first, count, this.#info)
    if (found < 0) throw failed('xc_domain_getinfolist', 'the domains cannot be listed')
    return Array.from({ length: found }, (_, index) =>
      parseDomainInfo(this.#info.subarray(index * length, (index + 1) * length), this.abi),
    )
  }
}

function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

function asUnavailable(error: unknown): unknown {
  if (!(error instanceof MicrovmiError) || error.code === 'DRIVER_UNAVAILABLE') return error
  const advice = error.code === 'DENIED' ? ': run as root in dom0' : ''
  return new MicrovmiError('DRIVER_UNAVAILABLE', `${error.message}${advice}`, { cause: error })
}
