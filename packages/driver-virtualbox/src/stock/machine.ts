import type { RunBackend, RunState } from '@microvmi/core/driver'
import { MicrovmiError } from '@microvmi/core/driver'
import type { VBoxManage } from './vboxmanage.ts'
import { numberIn, parseInfo } from './vboxmanage-output.ts'

/** What VirtualBox calls the states of a VM that is on (IMachine, MachineState, in lower case). */
const STATES: Readonly<Record<string, RunState>> = {
  running: 'running',
  paused: 'paused',
  gurumeditation: 'paused',
  livesnapshotting: 'running',
  teleporting: 'running',
}

/** The run state of a VM by the name that `showvminfo` has for it; undefined for one that is off. */
export function runStateOf(name: string | undefined): RunState | undefined {
  return name === undefined ? undefined : STATES[name]
}

/** VirtualBox's own limits (include/VBox/param.h: VMM_MAX_CPU_COUNT, MM_RAM_MAX_IN_MB). */
const MOST_VCPUS = 64
const MOST_MIB = 2 * 2 ** 20

/** What a VM is, as far as it does not change while it runs. */
export interface MachineFacts {
  readonly name: string
  readonly vcpuCount: number
  readonly memoryMiB: number
  /** When it was opened. */
  readonly isPaused: boolean
  /** Its settings file. */
  readonly settings: string | undefined
}

/** What can have a VM stand still for a moment. */
export interface Stopping {
  /** Does `work` with all vCPUs stopped, and leaves them as they were. */
  whileStopped<T>(work: () => T): T
}

/** One VM that runs, by VBoxManage. */
export class VirtualBoxMachine implements RunBackend, Stopping {
  readonly uuid: string
  readonly #vboxmanage: VBoxManage
  #stoppedByUs = false

  constructor(vboxmanage: VBoxManage, uuid: string) {
    this.#vboxmanage = vboxmanage
    this.uuid = uuid
  }

  /** What `VBoxManage debugvm` tells. */
  debug(...args: readonly string[]): string {
    return this.#vboxmanage.ask('debugvm', this.uuid, ...args)
  }

  /** Writes all of memory to a file. It takes as long as it takes: `timeout` is for a VM's whole memory. */
  dump(file: string, timeout: number): Promise<void> {
    return this.#vboxmanage.work(['debugvm', this.uuid, 'dumpvmcore', `--filename=${file}`], timeout)
  }

  info(): ReadonlyMap<string, string> {
    return parseInfo(this.#vboxmanage.ask('showvminfo', this.uuid, '--machinereadable'))
  }

  /** Throws `PROTOCOL` where VBoxManage says what no VirtualBox does. */
  facts(): MachineFacts {
    const info = this.info()
    return {
      name: info.get('name') ?? this.uuid,
      vcpuCount: numberIn(info, 'cpus', MOST_VCPUS),
      memoryMiB: numberIn(info, 'memory', MOST_MIB),
      isPaused: runStateOf(info.get('VMState')) === 'paused',
      settings: info.get('CfgFile'),
    }
  }

  pause(): void {
    this.#stoppedByUs = this.state() === 'running'
    if (this.#stoppedByUs) this.#control('pause')
  }

  resume(): void {
    if (!this.#stoppedByUs) return
    this.#stoppedByUs = false
    this.#control('resume')
  }

  state(): RunState {
    const name = this.info().get('VMState')
    const state = runStateOf(name)
    if (state === undefined) throw new MicrovmiError('VM_GONE', `the VM does not run any more: it is ${name}`)
    return state
  }

  setState(state: RunState): void {
    if (this.state() !== state) this.#control(state === 'running' ? 'resume' : 'pause')
  }

  whileStopped<T>(work: () => T): T {
    if (this.state() === 'paused') return work()
    this.#control('pause')
    try {
      return work()
    } finally {
      this.#control('resume')
    }
  }

  /** A call that fails because it was made before, and given up, has what it wanted. */
  #control(what: 'pause' | 'resume'): void {
    try {
      this.#vboxmanage.ask('controlvm', this.uuid, what)
    } catch (error) {
      if (!(error instanceof MicrovmiError) || error.code !== 'HYPERVISOR') throw error
      if (this.state() !== (what === 'pause' ? 'paused' : 'running')) throw error
    }
  }
}
