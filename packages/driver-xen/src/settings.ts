import { type EventKind, type InterceptRequest, MicrovmiError } from '@microvmi/core/driver'
import { CONTROL_REGISTERS } from './abi/vm-event.ts'
import type { DomainInfo } from './domain-info.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** XEN_DOMCTL_MONITOR_EVENT_* (domctl.h): the bit of each in xc_monitor_get_capabilities. */
const MONITOR_BITS: { readonly [Kind in EventKind]?: number } = {
  cr: 0,
  msr: 1,
  singlestep: 2,
  breakpoint: 3,
  int3: 3,
  hypercall: 4,
  debug: 5,
  cpuid: 6,
  descriptor: 9,
  io: 13,
}

/** Kinds whose answers may be steps. */
const STEPPED: readonly EventKind[] = ['memory', 'singlestep', 'breakpoint', 'int3', 'debug']

/**
 * Ports that a guest has without Xen's leave (hvm_io_bitmap: start of arch/x86/hvm/hvm.c; the first is closed by Xen's
 * option hvm_port80).
 */
const OPEN_PORTS: readonly number[] = [0x80, 0xed]

/** The kinds of events that a domain's monitor has. Of page accesses it does not tell. */
export function kindsOf(xen: Xen, { domid, hasDevices }: DomainInfo): EventKind[] {
  const bits = new Uint32Array(1)
  if (xen.libraries.xc.monitor_get_capabilities(xen.handle, domid, bits) < 0) return []
  const kinds = Object.entries(MONITOR_BITS) as [EventKind, number][]
  return kinds
    .filter(([kind, bit]) => ((bits[0] ?? 0) >>> bit) & 1 && (kind !== 'io' || (xen.abi.hasIo && !hasDevices)))
    .map(([kind]) => kind)
}

/** What Xen's monitor is told to report, and how to tell it. */
interface Setting {
  readonly key: string
  readonly call: string
  set(enable: boolean): number
}

/** What the monitor of a domain reports: all that is armed, and no more. */
export class Settings {
  readonly #xen: Xen
  readonly #domid: number
  readonly #canStep: boolean
  #current = new Map<string, Setting>()

  constructor(xen: Xen, domid: number, canStep: boolean) {
    this.#xen = xen
    this.#domid = domid
    this.#canStep = canStep
  }

  /** Whether something that is reported now would not be any more. */
  losesWith(requests: readonly InterceptRequest[], isHeld: boolean): boolean {
    const wanted = this.#wanted(requests, isHeld)
    return [...this.#current.keys()].some((key) => !wanted.has(key))
  }

  /**
   * Makes Xen report what these requests need. Throws, with everything as it was before, what it refuses.
   * @param isHeld whether steps are needed besides
   */
  apply(requests: readonly InterceptRequest[], isHeld: boolean): void {
    const wanted = this.#wanted(requests, isHeld)
    const before = this.#current
    for (const [key, setting] of before) {
      if (!wanted.has(key)) setting.set(false)
    }
    this.#current = new Map([...before].filter(([key]) => wanted.has(key)))
    for (const [key, setting] of wanted) {
      if (before.has(key)) continue
      if (setting.set(true) < 0) {
        const error = failed(setting.call, `domain ${this.#domid}`)
        for (const [other, one] of this.#current) if (!before.has(other)) one.set(false)
        for (const [other, one] of before) if (!this.#current.has(other)) one.set(true)
        this.#current = before
        throw error
      }
      this.#current.set(key, setting)
    }
  }

  #wanted(requests: readonly InterceptRequest[], isHeld: boolean): Map<string, Setting> {
    const { xc } = this.#xen.libraries
    const { handle } = this.#xen
    const domid = this.#domid
    const wanted = new Map<string, Setting>()
    const want = (key: string, call: string, set: (enable: boolean) => number) => wanted.set(key, { key, call, set })
    for (const register of CONTROL_REGISTERS) {
      const writes = requests.filter(
        (one) => one.kind === 'cr' && one.register === register,
      ) as InterceptRequest<'cr'>[]
      if (writes.length === 0) continue
      const sync = writes.some(({ asynchronous }) => asynchronous !== true)
      const onChange = writes.every((one) => one.onChange !== false)
      const index = CONTROL_REGISTERS.indexOf(register)
      want(`${register} ${sync} ${onChange}`, 'xc_monitor_write_ctrlreg', (enable) =>
        xc.monitor_write_ctrlreg(handle, domid, index, enable, sync, 0n, onChange),
      )
    }
    const msrs = requests.filter(({ kind }) => kind === 'msr') as InterceptRequest<'msr'>[]
    for (const msr of new Set(msrs.map((one) => one.msr))) {
      const onChange = msrs.every((one) => one.msr !== msr || one.onChange !== false)
      want(`msr ${msr} ${onChange}`, 'xc_monitor_mov_to_msr', (enable) =>
        xc.monitor_mov_to_msr(handle, domid, msr, enable, onChange),
      )
    }
    const has = (...kinds: EventKind[]) => requests.some(({ kind }) => kinds.includes(kind))
    if (has('breakpoint', 'int3')) {
      want('breakpoint', 'xc_monitor_software_breakpoint', (enable) =>
        xc.monitor_software_breakpoint(handle, domid, enable),
      )
    }
    if (has('debug')) {
      want('debug', 'xc_monitor_debug_exceptions', (enable) => xc.monitor_debug_exceptions(handle, domid, enable, true))
    }
    if (has('descriptor')) {
      want('descriptor', 'xc_monitor_descriptor_access', (enable) =>
        xc.monitor_descriptor_access(handle, domid, enable),
      )
    }
    if (has('hypercall')) {
      want('hypercall', 'xc_monitor_guest_request', (enable) =>
        xc.monitor_guest_request(handle, domid, enable, true, true),
      )
    }
    if (has('cpuid')) want('cpuid', 'xc_monitor_cpuid', (enable) => xc.monitor_cpuid(handle, domid, enable))
    if (has('io')) want('io', 'xc_monitor_io', (enable) => xc.monitor_io(handle, domid, enable))
    // Steps are reported of vCPUs alone that are stepped.
    if (this.#canStep && (isHeld || has(...STEPPED))) {
      want('singlestep', 'xc_monitor_singlestep', (enable) => xc.monitor_singlestep(handle, domid, enable))
    }
    return wanted
  }
}

/** Throws for what Xen's monitor cannot filter, before anything is touched. */
export function checkRequest(request: InterceptRequest): void {
  if (request.kind === 'cr' && request.onChange === false) {
    // hvm_monitor_cr() (Xen, arch/x86/hvm/monitor.c) reports nothing where no bit has changed.
    throw new MicrovmiError(
      'UNSUPPORTED',
      'Xen reports no writes of the value that is there already: leave onChange out',
    )
  }
  if (request.kind === 'io' && request.port !== undefined && OPEN_PORTS.includes(request.port)) {
    const ports = OPEN_PORTS.map((port) => `0x${port.toString(16)}`).join(' and ')
    throw new MicrovmiError('UNSUPPORTED', `Xen lets guests use the I/O ports ${ports} themselves, and sees nothing`)
  }
}
