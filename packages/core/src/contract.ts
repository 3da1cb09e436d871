import type { BackendWith } from './backend.ts'
import type { Capability, RunState } from './capability.ts'
import type { AbortSignalLike } from './events.ts'

/**
 * The version of the contract between core and drivers that this core speaks. Below 1.0 every minor is a contract of
 * its own; from then on a core takes drivers of its own major with a minor up to its own.
 *
 * A driver states the version that it was written against as a literal, never this constant: else it would always
 * match.
 */
export const CONTRACT: ContractVersion = { major: 0, minor: 1 }

/** A version of the contract. */
export interface ContractVersion {
  readonly major: number
  readonly minor: number
}

/** Whether this core can use a driver written against `version`. */
export function speaks(version: ContractVersion): boolean {
  if (version.major !== CONTRACT.major) return false
  return CONTRACT.major === 0 ? version.minor === CONTRACT.minor : version.minor <= CONTRACT.minor
}

/** How an option is written in a target string (`kvm:debian?timeout=5000`). */
export type OptionType = 'string' | 'number' | 'boolean'

/** How each option of `Options` is written. */
export type OptionTypes<Options> = {
  readonly [Name in keyof Options & string]-?: NonNullable<Options[Name]> extends string
    ? 'string'
    : NonNullable<Options[Name]> extends number
      ? 'number'
      : NonNullable<Options[Name]> extends boolean
        ? 'boolean'
        : OptionType
}

/** What a driver's `open` receives. */
export interface OpenRequest<Options> {
  /** Which VM: what the user gave, or `vm` of a listing. */
  readonly vm: string
  readonly options: Options
  /** Milliseconds that one exchange with the hypervisor may take. */
  readonly timeout: number
  /** Aborted when the user gives up; then `open` lets go of what it has and throws `ABORTED`. */
  readonly signal: AbortSignalLike | undefined
}

/** What a driver's `list` receives. */
export interface ListRequest {
  /** Milliseconds that the whole listing may take. */
  readonly timeout: number
}

/** A VM that a driver can open, or could once it runs. */
export interface VmListing {
  /** What `open` takes as `vm`: unique among this driver's VMs. */
  readonly vm: string
  readonly name: string
  /** The hypervisor's own identifier. */
  readonly id: string
  readonly state: RunState | 'stopped' | 'saved' | 'unknown'
  /** Why it cannot be opened as it is, if so. */
  readonly hindrance?: string
}

/** Whether a driver can work on this host. */
export type Probe =
  | { readonly usable: true; readonly details?: Readonly<Record<string, string>> }
  | {
      readonly usable: false
      /** What is missing, and what the user can do about it. */
      readonly reason: string
    }

/**
 * A driver: one way to one hypervisor's VMs. A package makes it a value, registers it on import, and exports it.
 * Importing must work on every platform: native libraries are loaded by `probe`, `list` and `open`.
 */
export interface Driver<
  Options extends object = object,
  Promised extends Capability = Capability,
  Possible extends Capability = Capability,
> {
  /** Lower-case letters, digits and hyphens, beginning with a letter: what targets begin with. */
  readonly scheme: string
  /** The package and its version, for messages: `@acme/driver-bhyve 1.2.0`. */
  readonly package: string
  /** The contract it was written against, as a literal. */
  readonly contract: ContractVersion
  /** What all of its VMs can do, on every host. */
  readonly promises: readonly Promised[]
  /** What some can: found when one is opened. */
  readonly possible: readonly Possible[]
  /** Its own open options and how they are written in a target string. */
  readonly options: OptionTypes<Options>
  probe(): Promise<Probe>
  list(request: ListRequest): Promise<readonly VmListing[]>
  /** Throws `VM_NOT_FOUND`, `VM_AMBIGUOUS`, `DRIVER_UNAVAILABLE`, `DENIED`, `BUSY`, `TIMEOUT`, `PROTOCOL`. */
  open(request: OpenRequest<Options>): Promise<BackendWith<Promised>>
}

/**
 * Types a driver: infers its promises from the literals, and demands the backend's parts for them. A driver without
 * options of its own writes `defineDriver<object>()({ … })`; with some, `defineDriver<MyOptions>()({ … })`.
 *
 * @example
 * ```ts
 * import { defineDriver, register } from '@microvmi/core/driver'
 *
 * export const acme = register(
 *   defineDriver<{ socket?: string }>()({
 *     scheme: 'acme',
 *     package: '@acme/microvmi-driver 1.0.0',
 *     contract: { major: 0, minor: 1 },
 *     promises: ['memory.read'],
 *     possible: [],
 *     options: { socket: 'string' },
 *     probe: async () => ({ usable: true }),
 *     list: async () => [],
 *     open: async ({ vm }) => ({
 *       name: vm,
 *       id: vm,
 *       hypervisor: 'Acme 1.0',
 *       vcpuCount: 1,
 *       capabilities: ['memory.read'],
 *       memory: { read: (address, into) => into.fill(0).length },
 *       release() {},
 *       close: async () => {},
 *     }),
 *   }),
 * )
 * ```
 */
export function defineDriver<Options extends object>(): <
  const Promised extends Capability = never,
  const Possible extends Capability = never,
>(
  driver: Driver<Options, Promised, Possible>,
) => Driver<Options, Promised, Possible> {
  return (driver) => driver
}
