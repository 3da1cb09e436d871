import { type EventKinds, MicrovmiError } from '@microvmi/core/driver'
import { ENCODED } from '../gdb-registers.ts'
import { type MoveToControl, movesTo } from '../instructions.ts'
import { CodeSites } from './code-sites.ts'
import type { Debugger, Sight, Stop, Watcher } from './watcher.ts'

/** CR4.PCIDE: with it, bit 63 of what is moved to CR3 is a hint and not kept (Intel SDM volume 3A, section 4.10.4.1). */
const PCIDE = 1n << 17n
const HINT = 1n << 63n

/**
 * `cr`: a write to a control register, seen by breakpoints on the guest kernel's own `mov` instructions. What else
 * changes one (`lmsw`, `clts`, a task switch, an instruction in memory that was mapped since) is not seen.
 */
export class ControlRegisterWatcher implements Watcher {
  readonly #register: 'cr0' | 'cr3' | 'cr4'
  readonly #onChange: boolean
  readonly #mask: bigint
  readonly #sites: CodeSites<MoveToControl>

  constructor({ register, onChange = true, mask }: EventKinds['cr']['request']) {
    if (register === 'xcr0')
      throw new MicrovmiError('UNSUPPORTED', 'QEMU shows writes to cr0, cr3 and cr4, not to xcr0')
    this.#register = register
    this.#onChange = onChange || mask !== undefined
    this.#mask = mask ?? -1n
    this.#sites = new CodeSites(`mov ${register}, reg`, (code) => movesTo(register, code))
  }

  arm(debugging: Debugger): void {
    this.#sites.arm(debugging, this)
  }

  disarm(debugging: Debugger): void {
    this.#sites.disarm(debugging, this)
  }

  reset(debugging: Debugger): void {
    this.#sites.rescan(debugging, this)
  }

  see({ rip, bytes }: Stop, { layout }: Debugger): Sight<'cr'> | undefined {
    const source = ENCODED[this.#sites.at(rip)?.source ?? -1]
    if (!source) return undefined
    const register = this.#register
    const old = layout.word(bytes, register)
    let value = layout.word(bytes, source)
    if (register === 'cr3' && (layout.word(bytes, 'cr4') & PCIDE) !== 0n) value &= ~HINT
    if (this.#onChange && ((old ^ value) & this.#mask) === 0n) return undefined
    return { kind: 'cr', complete: false, fields: { register, old, new: value } }
  }
}
