import { readFileSync, rmSync } from 'node:fs'
import {
  MicrovmiError,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
} from '@microvmi/core/driver'
import { parseDeviceState, registersIn } from './device-state.ts'
import type { Gdb } from './gdb.ts'
import { WRITABLE } from './gdb-registers.ts'
import { parseInfoRegisters } from './info-registers.ts'
import type { PrivateDirectory } from './private-directory.ts'
import type { Qmp } from './qmp.ts'
import type { QemuRunState } from './run-state.ts'

/**
 * Registers of stock QEMU. Read from the device state that QEMU writes for a migration (one exchange for everything),
 * or, where it cannot be had, from the human monitor's text. Written through the gdbstub.
 */
export class QemuRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName> = new Set(Object.keys(WRITABLE) as (keyof typeof WRITABLE)[])
  readonly #qmp: Qmp
  readonly #run: QemuRunState
  readonly #directory: PrivateDirectory
  /** Whether the device state agrees with the human monitor; undefined until it was compared. */
  #isStateTrusted: boolean | undefined

  constructor(qmp: Qmp, run: QemuRunState, directory: PrivateDirectory) {
    this.#qmp = qmp
    this.#run = run
    this.#directory = directory
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
    this.#run.throughStub((gdb) => writeAll(gdb, vcpu, changes))
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
