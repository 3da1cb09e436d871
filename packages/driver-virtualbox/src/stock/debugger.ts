import { readFileSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { DebugConsole } from './debug-console.ts'
import { type Address, addressText } from './debugger-address.ts'
import { GdbStub } from './gdb-stub.ts'
import type { MachineFacts } from './machine.ts'
import { debuggerIn } from './settings-file.ts'

/** The VM's debugger, of one of its two sorts; or why there is none. */
export type Debugger =
  | { readonly sort: 'console'; readonly line: DebugConsole; readonly where: string }
  | { readonly sort: 'gdb'; readonly line: GdbStub; readonly where: string }
  | { readonly sort: 'none'; readonly reason: string }

/** Which debugger the user wants. */
export interface DebuggerChoice {
  readonly console: Address | 'none' | undefined
  readonly gdb: Address | 'none' | undefined
}

/**
 * Connects to the debugger at the address that the user gave, or else to the one in the VM's settings. Throws `BUSY`
 * where another client holds it, and what is wrong with an address that the user gave; a debugger that is not on, or
 * is something else, is a reason.
 */
export function openDebugger(
  uuid: string,
  { vcpuCount, settings: file }: MachineFacts,
  { console, gdb }: DebuggerChoice,
  timeout: number,
): Debugger {
  if (console !== undefined && console !== 'none') return openConsole(console, timeout)
  if (gdb !== undefined && gdb !== 'none') return openStub(gdb, timeout, vcpuCount)
  if (console === 'none' && gdb === 'none') return none('the options `console` and `gdb` are none')
  const how = howToSwitchOn(uuid)
  const settings = readSettings(file)
  if (settings === undefined) {
    return none(`its settings cannot be read: give the option console=ADDRESS:PORT, where the console is on; ${how}`)
  }
  const found = debuggerIn(settings)
  if (!found) return none(how)
  if (found.provider === 'kd') return none(`its debugger is for Windows' KD protocol, which is not spoken here; ${how}`)
  const sort = found.provider === 'gdb' ? 'gdb' : 'console'
  if ((sort === 'gdb' ? gdb : console) === 'none') return none(`the option \`${sort}\` is none`)
  try {
    return sort === 'gdb' ? openStub(found, timeout, vcpuCount) : openConsole(found, timeout)
  } catch (error) {
    if (!(error instanceof MicrovmiError) || (error.code !== 'VM_NOT_FOUND' && error.code !== 'PROTOCOL')) throw error
    return none(`${error.message}; ${how}`)
  }
}

/** VirtualBox takes it only while the VM is off, and forgets it when its service ends, some seconds after its last user. */
function howToSwitchOn(uuid: string): string {
  return (
    'memory and writing need its debug console: switch it on while the VM is off, right before it is started: ' +
    `VBoxManage modifyvm ${uuid} --guest-debug-provider native --guest-debug-io-provider tcp ` +
    '--guest-debug-address 127.0.0.1 --guest-debug-port 12345'
  )
}

function none(reason: string): Debugger {
  return { sort: 'none', reason }
}

function openConsole(at: Address, timeout: number): Debugger {
  return { sort: 'console', line: new DebugConsole(at.host, at.port, timeout), where: addressText(at) }
}

function openStub(at: Address, timeout: number, vcpuCount: number): Debugger {
  return { sort: 'gdb', line: new GdbStub(at.host, at.port, timeout, vcpuCount), where: addressText(at) }
}

/** The VM's settings file; undefined where this user may not read it, or it is another computer's. */
function readSettings(file: string | undefined): string | undefined {
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM') return undefined
    throw error
  }
}
