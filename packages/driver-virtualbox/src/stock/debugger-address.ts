import { isIP } from 'node:net'
import { badArgument } from '@microvmi/core/driver'

/** Where something listens. */
export interface Address {
  /** An IP address: VirtualBox listens at no other, and a name would have to be looked up. */
  readonly host: string
  readonly port: number
}

/** What an option says: `address:port`, an IPv6 address in brackets, or `none`. Throws `BAD_ARGUMENT`. */
export function addressOption(option: string, text: string | undefined): Address | 'none' | undefined {
  if (text === undefined || text === 'none') return text
  const [, v6, v4, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? []
  const host = v6 ?? v4 ?? ''
  const port = Number(digits)
  const isAddress = isIP(host) === (v6 === undefined ? 4 : 6)
  if (isAddress && port >= 1 && port <= 65_535) return { host, port }
  throw badArgument(`${option} is ADDRESS:PORT, with an IP address, or none: not '${text.slice(0, 100)}'`)
}

/** As the option takes it. */
export function addressText({ host, port }: Address): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}
