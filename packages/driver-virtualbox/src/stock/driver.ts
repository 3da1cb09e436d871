import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { badArgument, type Driver, defineDriver, MicrovmiError, register, type VmListing } from '@microvmi/core/driver'
import { type ConsoleFound, VIRTUALBOX_POSSIBLE, VIRTUALBOX_PROMISES, VirtualBoxBackend } from './backend.ts'
import { DebugConsole } from './debug-console.ts'
import { runStateOf, VirtualBoxMachine } from './machine.ts'
import { debuggerIn } from './settings-file.ts'
import { findVBoxManage, VBoxManage } from './vboxmanage.ts'
import { parseInfo, parseVms, type RegisteredVm } from './vboxmanage-output.ts'

/** What can be set when a VM is opened. */
export interface VirtualBoxOptions {
  /** The path of VBoxManage, where it is not in a usual place. */
  readonly vboxmanage?: string
  /** The VM's debug console as `address:port`, where the VM's settings cannot be read; `none` not to use it. */
  readonly console?: string
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
    options: { vboxmanage: 'string', console: 'string', directory: 'string' },

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
      return listings(new VBoxManage(findVBoxManage(undefined), timeout))
    },

    async open({ vm, options, timeout, signal }) {
      const console = consoleOption(options.console)
      const vboxmanage = new VBoxManage(findVBoxManage(options.vboxmanage), timeout)
      const { uuid, name } = runningVm(vboxmanage, vm)
      const machine = new VirtualBoxMachine(vboxmanage, uuid)
      const version = versionOf(vboxmanage)
      if (signal?.aborted) throw new MicrovmiError('ABORTED', `opening virtualbox:${name} was given up`)
      const found = openConsole(machine, console, timeout, name)
      return new VirtualBoxBackend(machine, found, { version, directory: options.directory ?? tmpdir(), timeout })
    },
  }),
)

const PROBE_TIMEOUT = 5000

function versionOf(vboxmanage: VBoxManage): string {
  return vboxmanage.ask('--version').trim().split('\n').at(-1) ?? 'unknown'
}

function listings(vboxmanage: VBoxManage): VmListing[] {
  const running = new Set(parseVms(vboxmanage.ask('list', 'runningvms')).map(({ uuid }) => uuid))
  return parseVms(vboxmanage.ask('list', 'vms')).map(({ name, uuid }) => {
    const listing = { vm: uuid, name, id: uuid }
    if (!running.has(uuid)) return { ...listing, state: 'stopped', hindrance: 'it is not running: start it' }
    const state = parseInfo(vboxmanage.ask('showvminfo', uuid, '--machinereadable')).get('VMState')
    return { ...listing, state: runStateOf(state) ?? 'unknown' }
  })
}

function runningVm(vboxmanage: VBoxManage, vm: string): RegisteredVm {
  const all = parseVms(vboxmanage.ask('list', 'vms'))
  const named = all.filter(({ name }) => name === vm)
  const [first, second] = named.length > 0 ? named : all.filter(({ uuid }) => uuid === vm.toLowerCase())
  if (first && second) {
    throw new MicrovmiError(
      'VM_AMBIGUOUS',
      `several VMs are called '${vm}': open one by its UUID (${named.map(({ uuid }) => uuid).join(', ')})`,
    )
  }
  const running = parseVms(vboxmanage.ask('list', 'runningvms'))
  if (first && running.some(({ uuid }) => uuid === first.uuid)) return first
  const names = running.map(({ name }) => name).join(', ')
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    first
      ? `${vm} is not running: start it with VBoxManage startvm`
      : `VirtualBox has no VM '${vm.slice(0, 100)}'. Running: ${names || 'none of this user'}`,
  )
}

/** The console at the address that the user gave, or else at the one in the VM's settings. */
function openConsole(
  machine: VirtualBoxMachine,
  given: { readonly host: string; readonly port: number } | 'none' | undefined,
  timeout: number,
  name: string,
): ConsoleFound {
  const how =
    `switch the debug console on while the VM is off, right before it is started: VBoxManage modifyvm "${name}" ` +
    '--guest-debug-provider native --guest-debug-io-provider tcp --guest-debug-address 127.0.0.1 --guest-debug-port 12345'
  if (given === 'none') return { console: undefined, reason: 'the option `console` is none' }
  if (given) return opened(given, timeout)
  const settings = settingsOf(machine)
  if (settings === undefined) {
    return {
      console: undefined,
      reason: `its settings cannot be read: give the option console=ADDRESS:PORT, or ${how}`,
    }
  }
  const found = debuggerIn(settings)
  if (!found) return { console: undefined, reason: how }
  if (found.provider) {
    return { console: undefined, reason: `its debugger is of the sort '${found.provider}', not the console: ${how}` }
  }
  try {
    return opened(found, timeout)
  } catch (error) {
    if (!(error instanceof MicrovmiError) || (error.code !== 'VM_NOT_FOUND' && error.code !== 'PROTOCOL')) throw error
    return { console: undefined, reason: `${error.message}: ${how}` }
  }
}

function opened(at: { readonly host: string; readonly port: number }, timeout: number): ConsoleFound {
  return { console: new DebugConsole(at.host, at.port, timeout), where: `${at.host}:${at.port}` }
}

/** The VM's settings file; undefined where this user may not read it, or it is another computer's. */
function settingsOf(machine: VirtualBoxMachine): string | undefined {
  const file = machine.info().get('CfgFile')
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM') return undefined
    throw error
  }
}

function consoleOption(text: string | undefined): { host: string; port: number } | 'none' | undefined {
  if (text === undefined || text === 'none') return text
  const [, host = '', digits] = /^\[?([0-9a-f.:]+?)\]?:(\d{1,5})$/i.exec(text) ?? []
  const port = Number(digits)
  if (host === '' || port < 1 || port > 65_535) throw badArgument(`console is ADDRESS:PORT or none, not '${text}'`)
  return { host, port }
}
