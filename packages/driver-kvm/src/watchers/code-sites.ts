import { MicrovmiError, type Registers } from '@microvmi/core/driver'
import type { Point } from '../breakpoints.ts'
import { POINT } from '../gdb.ts'
import type { Code } from '../instructions.ts'
import type { Debugger, Watcher } from './watcher.ts'

/** Milliseconds for which a debug register stays at an instruction that was not executed yet. */
const SAMPLE_TIME = 50
/** Seconds after a reset at which the code of the new kernel is looked for, since nothing tells when it is there. */
const RESCANS = [1, 2, 4, 8, 16, 32, 64]
/** A kernel has MiBs of code; what is mapped besides user code while page tables are isolated, some KiB. */
const KERNEL_SIZE = 2 ** 20
/** Linux keeps the kernel's page tables in the page before the user's (arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT). */
const ISOLATED = 0x1000n

/**
 * Breakpoints on every instruction of a kind in the guest kernel's code. Under emulation, on all of them. On KVM, on
 * those that a short sampling with the free debug registers finds in use: software breakpoints are out of the question
 * where some of the places only look like such an instruction.
 */
export class CodeSites<Site extends { readonly address: bigint }> {
  readonly #what: string
  readonly #find: (code: Iterable<Code>) => Iterable<Site>
  readonly #sites = new Map<bigint, Site>()
  readonly #points = new Map<bigint, Point>()
  readonly #executed = new Set<bigint>()
  /** What is to be sampled yet in this round. */
  #round: Site[] = []
  #timer: NodeJS.Timeout | undefined

  /** @param what the instructions, for messages */
  constructor(what: string, find: (code: Iterable<Code>) => Iterable<Site>) {
    this.#what = what
    this.#find = find
  }

  /** The instruction there; from now on it counts as one in use. */
  at(address: bigint): Site | undefined {
    const site = this.#sites.get(address)
    if (site) this.#executed.add(address)
    return site
  }

  arm(debugging: Debugger, watcher: Watcher): void {
    if (this.#scan(debugging) === 0) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        `no ${this.#what} was found in the guest's kernel: try again once the guest has booted`,
      )
    }
    try {
      if (debugging.onKvm) this.#sample(debugging, watcher)
      else this.#insertAll(debugging, watcher)
    } catch (error) {
      this.disarm(debugging, watcher)
      throw error
    }
    if (this.#points.size > 0) return
    throw new MicrovmiError('BUSY', `all debug registers are used: ${this.#what} needs at least one. End a breakpoint`)
  }

  disarm(debugging: Debugger, watcher: Watcher): void {
    clearTimeout(this.#timer)
    for (const address of [...this.#points.keys()]) this.#remove(address, debugging, watcher)
  }

  /** The guest was reset: there will be another kernel, perhaps elsewhere. */
  rescan(debugging: Debugger, watcher: Watcher): void {
    this.disarm(debugging, watcher)
    this.#sites.clear()
    this.#executed.clear()
    this.#round = []
    const waits = RESCANS.map((at, index) => (at - (RESCANS[index - 1] ?? 0)) * 1000)
    const next = () => {
      const wait = waits.shift()
      if (wait === undefined) return
      this.#timer = later(wait, () => {
        debugging.whileStopped(() => {
          this.disarm(debugging, watcher)
          this.#scan(debugging)
          if (debugging.onKvm) this.#sample(debugging, watcher)
          else this.#insertAll(debugging, watcher)
        })
        next()
      })
    }
    next()
  }

  /** How many there are. */
  #scan({ gdb, layout, code, vcpuCount }: Debugger): number {
    const states: Registers[] = []
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
      gdb.select(vcpu)
      states.push(layout.registers(gdb.readAll()))
    }
    this.#sites.clear()
    for (const registers of addressSpaces(states)) {
      let size = 0
      const counted = function* () {
        for (const piece of code.kernelCode(registers)) {
          size += piece.bytes.length
          yield piece
        }
      }
      for (const site of this.#find(counted())) this.#sites.set(site.address, site)
      if (size >= KERNEL_SIZE) break
    }
    return this.#sites.size
  }

  #insertAll(debugging: Debugger, watcher: Watcher): void {
    for (const { address } of this.#sites.values()) {
      this.#points.set(
        address,
        debugging.points.insert(debugging, { type: POINT.hardware, address, length: 1 }, watcher),
      )
    }
  }

  /** Gives the debug registers that are free, or at what was not executed, to the next ones; until a round is over. */
  #sample(debugging: Debugger, watcher: Watcher): void {
    for (const address of [...this.#points.keys()]) {
      if (!this.#executed.has(address)) this.#remove(address, debugging, watcher)
    }
    if (this.#round.length === 0) {
      if (this.#executed.size > 0) return
      this.#round = [...this.#sites.values()]
    }
    for (let site = this.#round[0]; site; site = this.#round[0]) {
      if (!this.#insertHardware(site, debugging, watcher)) break
      this.#round.shift()
    }
    if (this.#points.size === 0 || this.#points.size === this.#executed.size) return
    this.#timer = later(SAMPLE_TIME, () => debugging.whileStopped(() => this.#sample(debugging, watcher)))
  }

  /** False: no debug register is free. */
  #insertHardware({ address }: Site, debugging: Debugger, watcher: Watcher): boolean {
    try {
      this.#points.set(
        address,
        debugging.points.insert(debugging, { type: POINT.hardware, address, length: 1 }, watcher),
      )
      return true
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'BUSY') return false
      throw error
    }
  }

  #remove(address: bigint, debugging: Debugger, watcher: Watcher): void {
    const point = this.#points.get(address)
    this.#points.delete(address)
    if (point) debugging.points.remove(debugging, point, watcher)
  }
}

/** Where to look for the kernel, the most promising first: what a vCPU uses that executes it. */
function addressSpaces(states: readonly Registers[]): Registers[] {
  const inKernel = states.filter(({ cs }) => ((cs?.selector ?? 0) & 3) === 0)
  const inUser = states.filter((registers) => !inKernel.includes(registers))
  const isolated = inUser.flatMap((registers) =>
    (registers.cr3 & ISOLATED) === 0n ? [] : [{ ...registers, cr3: registers.cr3 & ~ISOLATED }],
  )
  return [...inKernel, ...isolated, ...inUser]
}

function later(milliseconds: number, work: () => void): NodeJS.Timeout {
  return setTimeout(work, milliseconds).unref()
}
