/** Where a VM's debugger is reached, and which it is as far as the settings tell. */
export interface DebuggerPort {
  /** Undefined where it may be the console: see `debuggerIn`. */
  readonly provider: 'gdb' | 'kd' | undefined
  readonly host: string
  readonly port: number
}

/**
 * `<GuestDebug provider="…" io="TCP" address="…" port="…"/>` of a VM's settings file. VirtualBox 7.2 writes the
 * provider `native` as `None`: what is there is found out by connecting.
 */
export function debuggerIn(settings: string): DebuggerPort | undefined {
  const [, attributes = ''] = /<GuestDebug\s([^>]*)>/.exec(settings) ?? []
  const value = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1]
  const port = Number(value('port'))
  if (value('io') !== 'TCP' || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined
  const address = value('address')
  const named = value('provider')?.toLowerCase()
  const provider = named === 'gdb' || named === 'kd' ? named : undefined
  // Without an address VirtualBox listens at every one.
  const host = address === undefined || address === '' || address === '0.0.0.0' ? '127.0.0.1' : address
  return { provider, host, port }
}
