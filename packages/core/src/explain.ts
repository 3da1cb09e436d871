import type { Capability } from './capability.ts'
import type { MicrovmiError } from './errors.ts'

/** Under this key a Vm keeps the function that says why it lacks a capability; the same for every copy of core. */
export const explainLack: unique symbol = Symbol.for('microvmi.explainLack')

/** A Vm that can say so. */
export interface Explaining {
  readonly [explainLack]?: (capability: Capability) => MicrovmiError
}
