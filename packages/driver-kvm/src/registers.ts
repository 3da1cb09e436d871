import { readFileSync, rmSync } from 'node:fs'
import {
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
} from '@microvmi/core/driver'
import { parseDeviceState, registersIn } from './device-state.ts'
import { Gdb } from './gdb.ts'
import { parseInfoRegisters } from './info-registers.ts'
import { isLeftover, type PrivateDirectory } from './private-directory.ts'
import type { Qmp } from './qmp.ts'
import { array, object } from './qmp.ts'
import type { QemuRunState } from './run-state.ts'

/** Registers that the gdbstub takes and gives back, and what it calls them. Each was seen to read back (QEMU 7.2). */
const WRITABLE = {
  ...{ rax: 'rax', rbx: 'rbx', rcx: 'rcx', rdx: 'rdx', rsi: 'rsi', rdi: 'rdi', rbp: 'rbp', rsp: 'rsp' },
  ...{ r8: 'r8', r9: 'r9', r10: 'r10', r11: 'r11', r12: 'r12', r13: 'r13', r14: 'r14', r15: 'r15' },
  ...{ rip: 'rip', rflags: 'eflags', cr0: 'cr0', cr2: 'cr2', cr3: 'cr3', cr4: 'cr4', cr8: 'cr8' },
  ...{ efer: 'efer', kernelGsBase: 'k_gs_base' },
} as const satisfies { readonly [Name in RegisterName]?: string }

/** MSRs that are among the registers, by index (Linux, asm/msr-index.h). */
const MSRS: Readonly<Record<number, (registers: Registers) => bigint | undefined>> = {
  27: ({ apicBase }) => apicBase,
  372: ({ sysenterCs }) => sysenterCs,
  373: ({ sysenterEsp }) => sysenterEsp,
  374: ({ sysenterEip }) => sysenterEip,
  631: ({ pat }) => pat,
  3221225600: ({ efer }) => efer,
  3221225601: ({ star }) => star,
  3221225602: ({ lstar }) => lstar,
  3221225603: ({ cstar }) => cstar,
  3221225604: ({ fmask }) => fmask,
  3221225728: ({ fs }) => fs?.base,
  3221225729: ({ gs }) => gs?.base,
  3221225730: ({ kernelGsBase }) => kernelGsBase,
}

/**
 * Registers of stock QEMU. Read from the device state that QEMU writes for a migration (one exchange for everything),
 * or, where it cannot be had, from the human monitor's text. Written through the gdbstub.
 */
export class QemuRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName> = new Set(Object.keys(WRITABLE) as (keyof typeof WRITABLE)[])
  readonly #qmp: Qmp
  readonly #run: QemuRunState
  readonly #directory: PrivateDirectory
  readonly #timeout: number
  /** Whether the device state agrees with the human monitor; undefined until it was compared. */
  #isStateTrusted: boolean | undefined

  constructor(qmp: Qmp, run: QemuRunState, directory: PrivateDirectory, timeout: number) {
    this.#qmp = qmp
    this.#run = run
    this.#directory = directory
    this.#timeout = timeout
  }

  /** Where `read` has the registers from. */
  get source(): 'device state' | 'human monitor' {
    return this.#isStateTrusted === false ? 'human monitor' : 'device state'
  }

  read(vcpu: number): Registers {
    return this.#run.whileStopped(() => this.readStopped(vcpu))
  }

  /** For a VM that is stopped. */
  readStopped(vcpu: number): Registers {
    if (this.#isStateTrusted !== false) {
      const registers = this.#fromDeviceState(vcpu)
      if (registers && this.#isStateTrusted) return registers
      const printed = this.#fromMonitor(vcpu)
      this.#isStateTrusted = registers !== undefined && agree(registers, printed)
      return this.#isStateTrusted && registers ? registers : printed
    }
    return this.#fromMonitor(vcpu)
  }

  write(vcpu: number, changes: RegisterChanges): void {
    this.#run.whileStopped(() => {
      const { path, isOurs } = this.#startStub()
      try {
        const gdb = new Gdb(path, this.#timeout)
        try {
          writeAll(gdb, vcpu, changes)
        } finally {
          gdb.close()
        }
      } finally {
        if (isOurs) {
          this.#qmp.human('gdbserver none')
          rmSync(path, { force: true })
        }
      }
    })
  }

  /** A gdbstub that is there is used; one of ours is started where there is none, or only what a killed process left. */
  #startStub(): { path: string; isOurs: boolean } {
    const stub = array(this.#qmp.execute('query-chardev'), 'query-chardev')
      .map((chardev) => object(chardev, 'chardev'))
      .find(({ label }) => label === 'gdb')
    if (stub) {
      const path = /unix:([^,]+)/.exec(String(stub.filename))?.[1]
      if (path === undefined) {
        throw new MicrovmiError(
          'BUSY',
          `QEMU's gdbstub is at ${String(stub.filename)}: registers are written through one at a unix socket. Start ` +
            'QEMU with -gdb unix:PATH,server=on,wait=off, or with none',
        )
      }
      if (!isLeftover(path)) return { path, isOurs: false }
    }
    const path = this.#directory.path('gdb')
    this.#qmp.human(`gdbserver unix:${path},server=on,wait=off`)
    return { path, isOurs: true }
  }

  #fromMonitor(vcpu: number): Registers {
    return parseInfoRegisters(this.#qmp.human('info registers', vcpu))
  }

  #fromDeviceState(vcpu: number): Registers | undefined {
    const filename = this.#directory.path('state')
    try {
      // live: true would take the block devices away from a VM that is paused.
      this.#qmp.execute('xen-save-devices-state', { filename, live: false })
      return registersIn(parseDeviceState(readFileSync(filename)))?.get(vcpu)
    } catch (error) {
      // A device that cannot be migrated, or a directory that QEMU's user may not write to: there is another source.
      if (error instanceof MicrovmiError && (error.code === 'HYPERVISOR' || error.code === 'PROTOCOL')) return undefined
      throw error
    } finally {
      rmSync(filename, { force: true })
    }
  }
}

/** `readMsr` for those that are among the registers. */
export class QemuMsrs implements MsrBackend {
  readonly #registers: QemuRegisters

  constructor(registers: QemuRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    const of = MSRS[index]
    const value = of?.(this.#registers.read(vcpu))
    if (value !== undefined) return value
    const known = Object.keys(MSRS).map((known) => `0x${Number(known).toString(16)}`)
    throw new MicrovmiError(
      'UNSUPPORTED',
      `QEMU does not tell MSR 0x${index.toString(16)}; it tells ${known.join(', ')}`,
    )
  }
}

/** Whether what a layout of ours says is what QEMU prints: else this is a QEMU with another layout. */
function agree(state: Registers, printed: Registers): boolean {
  const names = ['rip', 'rsp', 'rax', 'r15', 'cr0', 'cr3', 'cr4', 'dr7', 'efer'] as const
  return (
    names.every((name) => state[name] === printed[name]) &&
    state.gdt?.base === printed.gdt?.base &&
    state.cs?.selector === printed.cs?.selector &&
    state.gs?.base === printed.gs?.base
  )
}

function writeAll(gdb: Gdb, vcpu: number, changes: RegisterChanges): void {
  const described = gdb.registers()
  const writes = Object.entries(changes).map(([name, value]) => {
    const register = described.get(WRITABLE[name as keyof typeof WRITABLE])
    if (!register || typeof value !== 'bigint') {
      throw new MicrovmiError('UNSUPPORTED', `QEMU's gdbstub has no register ${name}`)
    }
    return { register, value }
  })
  const tooWide = writes.find(({ register, value }) => BigInt.asUintN(register.bits, value) !== value)
  if (tooWide) {
    const { name, bits } = tooWide.register
    throw new MicrovmiError(
      'BAD_ARGUMENT',
      `register ${name} has ${bits} bits: 0x${tooWide.value.toString(16)} does not fit`,
    )
  }
  gdb.select(vcpu)
  for (const { register, value } of writes) gdb.write(register, value)
  for (const { register, value } of writes) {
    const now = gdb.read(register)
    if (now !== value) {
      throw new MicrovmiError(
        'HYPERVISOR',
        `register ${register.name} was set to 0x${value.toString(16)} and is 0x${now.toString(16)}: QEMU keeps some bits`,
      )
    }
  }
}
