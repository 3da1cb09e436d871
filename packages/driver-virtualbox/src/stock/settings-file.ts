import { isIP } from 'node:net'
import type { Address } from './debugger-address.ts'

/** Where a VM's debugger is reached, and which it is as far as the settings tell. */
export interface DebuggerSetting extends Address {
  /** Undefined where it may be the console: see `debuggerIn`. */
  readonly provider: 'gdb' | 'kd' | undefined
}

/**
 * `<GuestDebug provider="…" io="TCP" address="…" port="…"/>` of a VM's settings file. VirtualBox 7.2 writes the
 * provider `native` as `None`: what is there is found out by connecting.
 */
export function debuggerIn(settings: string): DebuggerSetting | undefined {
  const [, attributes = ''] = /<GuestDebug\s([^>]*)>/.exec(settings) ?? []
  const value = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1]
  const port = Number(value('port'))
  if (value('io')?.toUpperCase() !== 'TCP' || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined
  const named = value('provider')?.toLowerCase()
  const provider = named === 'gdb' || named === 'kd' ? named : undefined
  return { provider, host: reachable(value('address') ?? ''), port }
}

/** Without an address VirtualBox listens at every one. */
function reachable(address: string): string {
  if (isIP(address) === 0 || address === '0.0.0.0') return '127.0.0.1'
  return address === '::' ? '::1' : address
}
