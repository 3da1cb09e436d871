import { CONTRACT, type Driver, speaks } from './contract.ts'
import { MicrovmiError } from './errors.ts'

/** One list per process, shared by every copy of core and every version of the contract. */
const key = Symbol.for('microvmi.registry')

function drivers(): Driver[] {
  const holder = globalThis as { [key]?: Driver[] }
  holder[key] ??= []
  return holder[key]
}

/**
 * Makes a driver known under its scheme. Never throws, so that an import never fails: a second driver of the same
 * scheme, or one of another contract, is reported where it is used (`open`, and the command line's `doctor`).
 */
export function register<D extends Pick<Driver, 'scheme'>>(driver: D): D {
  const all = drivers()
  // Every copy of core checks what it takes from the list, so the list may hold what this copy cannot use.
  const known = driver as unknown as Driver
  if (!all.includes(known)) all.push(known)
  return driver
}

/** Forgets a driver. For tests. */
export function unregister(driver: Pick<Driver, 'scheme'>): void {
  const all = drivers()
  const index = all.indexOf(driver as Driver)
  if (index >= 0) all.splice(index, 1)
}

/** A registered driver, and why it cannot be used, if so. */
export interface Registration {
  readonly driver: Driver
  readonly problem: MicrovmiError | undefined
}

/** All registered drivers, in the order of their imports. */
export function registrations(): readonly Registration[] {
  return drivers().map((driver) => ({ driver, problem: contractProblem(driver) ?? conflict(driver) }))
}

/** The usable driver of a scheme; throws `UNKNOWN_DRIVER`, `DRIVER_CONFLICT` or `CONTRACT_MISMATCH`. */
export function driverOf(scheme: string): Driver {
  const found = registrations().find(({ driver }) => driver.scheme === scheme)
  if (!found) {
    const known = [...new Set(drivers().map((driver) => driver.scheme))].join(', ')
    throw new MicrovmiError(
      'UNKNOWN_DRIVER',
      `no driver is registered for '${scheme}': install the package that provides it and import it first. ${
        known ? `Registered: ${known}.` : 'None is registered.'
      }`,
    )
  }
  if (found.problem) throw found.problem
  return found.driver
}

/** Why this core cannot use a driver, whichever others are registered. */
export function contractProblem(driver: Pick<Driver, 'scheme' | 'package' | 'contract'>): MicrovmiError | undefined {
  const version: unknown = driver.contract
  if (isVersion(version) && speaks(version)) return undefined
  const theirs = isVersion(version) ? `${version.major}.${version.minor}` : 'none that can be read'
  return new MicrovmiError(
    'CONTRACT_MISMATCH',
    `driver '${driver.scheme}' (${driver.package}) was written against contract ${theirs}, this core speaks ` +
      `${CONTRACT.major}.${CONTRACT.minor}: install versions of the driver and of @microvmi/core that fit each other`,
  )
}

function isVersion(value: unknown): value is { major: number; minor: number } {
  if (typeof value !== 'object' || value === null || !('major' in value) || !('minor' in value)) return false
  return Number.isInteger(value.major) && Number.isInteger(value.minor)
}

function conflict(driver: Driver): MicrovmiError | undefined {
  const rivals = drivers().filter(({ scheme }) => scheme === driver.scheme)
  if (rivals.length < 2) return undefined
  return new MicrovmiError(
    'DRIVER_CONFLICT',
    `several drivers are registered for '${driver.scheme}' (${rivals.map((rival) => rival.package).join('; ')}): ` +
      'remove all but one, or pass the driver itself to open()',
  )
}
