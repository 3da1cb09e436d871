import type { Driver, OptionType } from './contract.ts'
import { badArgument } from './errors.ts'

/** Throws `BAD_ARGUMENT` for an option that the driver does not have. */
export function checkOption(driver: Driver, name: string): OptionType {
  const types: Readonly<Record<string, OptionType>> = driver.options
  const type = Object.hasOwn(types, name) ? types[name] : undefined
  if (type) return type
  const known = Object.keys(types).join(', ') || 'none'
  throw badArgument(`driver '${driver.scheme}' has no option '${name}'; it has: ${known}`)
}

/** An option's value as written in a target. `timeout` is every driver's. */
export function readOption(driver: Driver, name: string, text: string): string | number | boolean {
  const type = name === 'timeout' ? 'number' : checkOption(driver, name)
  if (type === 'string') return text
  if (type === 'number') {
    const value = text.trim() === '' ? Number.NaN : Number(text)
    if (Number.isFinite(value)) return value
    throw badArgument(`option '${name}' is a number, not '${text}'`)
  }
  if (text === 'true' || text === 'false') return text === 'true'
  throw badArgument(`option '${name}' is true or false, not '${text}'`)
}
