import { InvalidArgumentError } from 'commander'

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }

/**
 * A size or a guest-physical address: decimal or 0x…, with k, M, G or T (KiB, MiB, …) behind a decimal one, all powers
 * of 1024.
 */
export function parseNumber(text: string): number {
  const match = /^(?:(0x[0-9a-f]+)|(\d+)([kmgt]?)(?:i?b)?)$/i.exec(text)
  const [, hexadecimal, decimal, unit = ''] = match ?? []
  const value = hexadecimal ? Number(hexadecimal) : Number(decimal) * (UNITS[unit.toLowerCase()] ?? 1)
  if (match && Number.isSafeInteger(value)) return value
  throw new InvalidArgumentError('Write a number such as 4096, 0x1000 or 64k.')
}

/** A whole number from 0 on, without units. */
export function parseCount(text: string): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value
  throw new InvalidArgumentError('Write a whole number.')
}

/** Bytes as pairs of hexadecimal digits; blanks between them do not matter. */
export function parseBytes(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, '')
  if (digits === '' || !/^(?:[0-9a-f]{2})+$/i.test(digits)) {
    throw new InvalidArgumentError("Write pairs of hexadecimal digits, such as 'de ad be ef'.")
  }
  return Buffer.from(digits, 'hex')
}
