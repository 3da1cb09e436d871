import { tmpdir } from 'node:os'
import { type Driver, defineDriver, MicrovmiError, register } from '@microvmi/core/driver'
import { VIRTUALBOX_POSSIBLE, VIRTUALBOX_PROMISES, VirtualBoxBackend } from './backend.ts'
import { openDebugger } from './debugger.ts'
import { addressOption } from './debugger-address.ts'
import { VirtualBoxMachine } from './machine.ts'
import { listings, runningVm } from './registered-vms.ts'
import { VBoxManage } from './vboxmanage.ts'
import { findVBoxManage } from './vboxmanage-path.ts'

/** What can be set when a VM is opened. */
export interface VirtualBoxOptions {
  /** The path of VBoxManage, where it is not in a usual place. */
  readonly vboxmanage?: string
  /** The VM's debug console as `address:port`, where the VM's settings cannot be read; `none` not to use it. */
  readonly console?: string
  /** The same for its GDB stub, where that is what is on. */
  readonly gdb?: string
  /** Where core dumps are kept while they are read: VirtualBox writes there. Default: the temporary directory. */
  readonly directory?: string
}

/**
 * VirtualBox as it is, no patch. `vm` is a VM's name or UUID.
 *
 * Memory and writing need the VM's debug console. Switch it on while the VM is off, right before each start:
 *
 * ```sh
 * VBoxManage modifyvm NAME --guest-debug-provider native --guest-debug-io-provider tcp \
 *   --guest-debug-address 127.0.0.1 --guest-debug-port 12345
 * ```
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { virtualbox } from '@microvmi/driver-virtualbox'
 *
 * const vm = await open(virtualbox, { vm: 'debian', require: ['memory.read'] })
 * try {
 *   console.log(vm.readRegisters(0).rip, vm.memory.readUint64(0x1000))
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export const virtualbox: Driver<
  VirtualBoxOptions,
  (typeof VIRTUALBOX_PROMISES)[number],
  (typeof VIRTUALBOX_POSSIBLE)[number]
> = register(
  defineDriver<VirtualBoxOptions>()({
    scheme: 'virtualbox',
    package: '@microvmi/driver-virtualbox 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: VIRTUALBOX_PROMISES,
    possible: VIRTUALBOX_POSSIBLE,
    options: { vboxmanage: 'string', console: 'string', gdb: 'string', directory: 'string' },

    async probe() {
      try {
        const path = findVBoxManage(undefined)
        return { usable: true, details: { vboxmanage: path, version: versionOf(new VBoxManage(path, PROBE_TIMEOUT)) } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list({ timeout }) {
      return listings(new VBoxManage(findVBoxManage(undefined), timeout), timeout)
    },

    async open({ vm, options, timeout, signal }) {
      const choice = { console: addressOption('console', options.console), gdb: addressOption('gdb', options.gdb) }
      const vboxmanage = new VBoxManage(findVBoxManage(options.vboxmanage), timeout)
      const { uuid, name } = runningVm(vboxmanage, vm)
      const machine = new VirtualBoxMachine(vboxmanage, uuid)
      const version = versionOf(vboxmanage)
      const facts = machine.facts()
      if (signal?.aborted) throw new MicrovmiError('ABORTED', `opening virtualbox:${name} was given up`)
      const found = openDebugger(uuid, facts, choice, timeout)
      return new VirtualBoxBackend(machine, facts, found, {
        version,
        directory: options.directory ?? tmpdir(),
        timeout,
      })
    },
  }),
)

const PROBE_TIMEOUT = 5000

function versionOf(vboxmanage: VBoxManage): string {
  return vboxmanage.ask('--version').trim().split('\n').at(-1) ?? 'unknown'
}
