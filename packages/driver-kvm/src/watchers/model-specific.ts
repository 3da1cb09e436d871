import { type EventKinds, MicrovmiError } from '@microvmi/core/driver'
import { writesOfMsrs } from '../instructions.ts'
import { knownMsr } from '../msrs.ts'
import { CodeSites } from './code-sites.ts'
import type { Debugger, Sight, Stop, Watcher } from './watcher.ts'

/** `msr`: a write to a model-specific register, seen by breakpoints on every `wrmsr` of the guest's kernel. */
export class MsrWatcher implements Watcher {
  readonly #msr: number
  readonly #onChange: boolean
  readonly #sites = new CodeSites('wrmsr', writesOfMsrs)

  constructor({ msr, onChange = true }: EventKinds['msr']['request']) {
    this.#msr = msr
    this.#onChange = onChange
  }

  arm(debugging: Debugger): void {
    if (debugging.onKvm) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        "a kernel has more wrmsr instructions than a vCPU has debug registers. KVMi shows these events, and QEMU's emulation does",
      )
    }
    this.#sites.arm(debugging, this)
  }

  disarm(debugging: Debugger): void {
    this.#sites.disarm(debugging, this)
  }

  reset(debugging: Debugger): void {
    this.#sites.rescan(debugging, this)
  }

  see({ vcpu, rip, bytes }: Stop, { layout, registers }: Debugger): Sight<'msr'> | undefined {
    const word = (name: 'rax' | 'rcx' | 'rdx') => layout.word(bytes, name) & 0xffff_ffffn
    if (!this.#sites.at(rip) || word('rcx') !== BigInt(this.#msr)) return undefined
    const value = (word('rdx') << 32n) | word('rax')
    const old = knownMsr(this.#msr, () => registers(vcpu))
    if (this.#onChange && old === value) return undefined
    return { kind: 'msr', complete: false, fields: { msr: this.#msr, old, new: value } }
  }
}
