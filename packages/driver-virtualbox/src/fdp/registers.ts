import {
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
  type Segment,
} from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'
import { type FdpRegister, NOT_SERVED } from './layout.ts'
import type { FdpRunState } from './run-state.ts'

const GENERAL = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip'] as const),
]

/** MSRs that are registers of their own (Intel SDM volume 4, table 2-2). */
const MSR = {
  ...{ apicBase: 0x1b, sysenterCs: 0x174, sysenterEsp: 0x175, sysenterEip: 0x176, pat: 0x277 },
  ...{ efer: 0xc000_0080, star: 0xc000_0081, lstar: 0xc000_0082, cstar: 0xc000_0083, fmask: 0xc000_0084 },
  kernelGsBase: 0xc000_0102,
} as const
const FS_BASE = 0xc000_0100
const GS_BASE = 0xc000_0101
const TSC_AUX = 0xc000_0103

/** MSRs that VirtualBox has for every guest. */
const MSRS: ReadonlySet<number> = new Set([...Object.values(MSR), FS_BASE, GS_BASE, TSC_AUX])

/** CR2 is not among them: the server writes it into another register's place as well (DBGCTcp.cpp). */
const WRITABLE = [...GENERAL, 'cr0', 'cr3', 'cr4'] as const

/** Registers over FDP: each is an exchange of its own, never the page of shared registers, which is vCPU 0's alone. */
export class FdpRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName> = new Set(WRITABLE)
  readonly #client: FdpClient
  readonly #run: FdpRunState

  constructor(client: FdpClient, run: FdpRunState) {
    this.#client = client
    this.#run = run
  }

  read(vcpu: number): Registers {
    return this.#run.whileStopped(() => this.#readStopped(vcpu))
  }

  write(vcpu: number, changes: RegisterChanges): void {
    const writes = WRITABLE.flatMap((name) => {
      const value = changes[name]
      return value === undefined ? [] : [{ name, value }]
    })
    if (writes.length === 0) return
    if (vcpu !== 0) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        `registers of vCPU ${vcpu} cannot be written: the FDP server crashes the VM when it is asked for that`,
      )
    }
    this.#run.whileStopped(() => {
      for (const { name, value } of writes) {
        const done = this.#client.writeRegister(vcpu, name, value)
        const now = this.#client.readRegister(vcpu, name)
        if (done && now === value) continue
        throw new MicrovmiError(
          'HYPERVISOR',
          `register ${name} was set to 0x${value.toString(16)} and is 0x${now.toString(16)}: the VM does not take it`,
        )
      }
    })
  }

  #readStopped(vcpu: number): Registers {
    const general = (register: FdpRegister): bigint => this.#client.readRegister(vcpu, register)
    const served = (register: FdpRegister): bigint | undefined => this.#served(vcpu, register)
    const msr = (index: number): bigint => this.#client.readMsr(vcpu, index)
    return {
      architecture: 'x86-64',
      // The guest's own values, whatever they look like: these are always served.
      ...{ rax: general('rax'), rbx: general('rbx'), rcx: general('rcx'), rdx: general('rdx') },
      ...{ rsi: general('rsi'), rdi: general('rdi'), rbp: general('rbp'), rsp: general('rsp') },
      ...{ r8: general('r8'), r9: general('r9'), r10: general('r10'), r11: general('r11') },
      ...{ r12: general('r12'), r13: general('r13'), r14: general('r14'), r15: general('r15') },
      ...{ rip: general('rip'), rflags: this.#needed(vcpu, 'rflags'), cr0: this.#needed(vcpu, 'cr0') },
      ...{ cr2: this.#needed(vcpu, 'cr2'), cr3: this.#needed(vcpu, 'cr3'), cr4: this.#needed(vcpu, 'cr4') },
      ...{ cr8: served('cr8'), dr0: served('dr0'), dr1: served('dr1'), dr2: served('dr2'), dr3: served('dr3') },
      ...{ dr6: served('dr6'), dr7: served('dr7') },
      ...{ cs: this.#segment(vcpu, 'cs'), ds: this.#segment(vcpu, 'ds'), es: this.#segment(vcpu, 'es') },
      ...{ ss: this.#segment(vcpu, 'ss'), fs: this.#segment(vcpu, 'fs', msr(FS_BASE)) },
      ...{ gs: this.#segment(vcpu, 'gs', msr(GS_BASE)), tr: this.#segment(vcpu, 'tr') },
      ldt: this.#segment(vcpu, 'ldt', served('ldtBase'), served('ldtLimit')),
      gdt: this.#table(vcpu, 'gdtBase', 'gdtLimit'),
      idt: this.#table(vcpu, 'idtBase', 'idtLimit'),
      ...{ apicBase: msr(MSR.apicBase), pat: msr(MSR.pat), sysenterCs: msr(MSR.sysenterCs) },
      ...{ sysenterEsp: msr(MSR.sysenterEsp), sysenterEip: msr(MSR.sysenterEip), efer: msr(MSR.efer) },
      ...{ star: msr(MSR.star), lstar: msr(MSR.lstar), cstar: msr(MSR.cstar), fmask: msr(MSR.fmask) },
      kernelGsBase: msr(MSR.kernelGsBase),
    }
  }

  #needed(vcpu: number, register: FdpRegister): bigint {
    const value = this.#served(vcpu, register)
    if (value !== undefined) return value
    throw new MicrovmiError('PROTOCOL', `the FDP server does not serve ${register}`)
  }

  #served(vcpu: number, register: FdpRegister): bigint | undefined {
    const value = this.#client.readRegister(vcpu, register)
    return value === NOT_SERVED ? undefined : value
  }

  /** The server gives selectors, and hardly a base, limit or attributes. */
  #segment(vcpu: number, register: FdpRegister, base?: bigint, limit?: bigint): Segment | undefined {
    const selector = this.#served(vcpu, register)
    if (selector === undefined) return undefined
    const isLimit = limit !== undefined && limit <= 0xffff_ffffn
    return {
      selector: Number(selector & 0xffffn),
      base,
      limit: isLimit ? Number(limit) : undefined,
      attributes: undefined,
    }
  }

  #table(vcpu: number, base: FdpRegister, limit: FdpRegister) {
    const [start, end] = [this.#served(vcpu, base), this.#served(vcpu, limit)]
    return start === undefined || end === undefined ? undefined : { base: start, limit: Number(end & 0xffffn) }
  }
}

/** Model-specific registers over FDP. */
export class FdpMsrs implements MsrBackend {
  readonly #client: FdpClient
  readonly #run: FdpRunState

  constructor(client: FdpClient, run: FdpRunState) {
    this.#client = client
    this.#run = run
  }

  read(vcpu: number, index: number): bigint {
    const value = knownMsr(this.#client, vcpu, index)
    if (value !== undefined) return value
    throw new MicrovmiError(
      'UNSUPPORTED',
      `MSR 0x${index.toString(16)}: the FDP server says 0, as it does of an MSR that the VM has not`,
    )
  }

  write(vcpu: number, index: number, value: bigint): void {
    this.#run.whileStopped(() => {
      if (!this.#client.writeMsr(vcpu, index, value)) {
        throw new MicrovmiError(
          'UNSUPPORTED',
          `MSR 0x${index.toString(16)}: the VM does not have it, or not for writing`,
        )
      }
      const now = this.#client.readMsr(vcpu, index)
      if (now === value) return
      throw new MicrovmiError(
        'HYPERVISOR',
        `MSR 0x${index.toString(16)} was set to 0x${value.toString(16)} and is 0x${now.toString(16)}: the VM does not take it`,
      )
    })
  }
}

/**
 * An MSR's value; undefined where the server says 0 of one that not every guest has: it says so, too, when there is
 * none.
 */
export function knownMsr(client: FdpClient, vcpu: number, index: number): bigint | undefined {
  const value = client.readMsr(vcpu, index)
  return value !== 0n || MSRS.has(index) ? value : undefined
}
