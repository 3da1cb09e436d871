export type { GuestOptions } from './configuration.ts'
export { controlPage, type GuestFacts, type Mark, type Tick } from './facts.ts'
export { startGuest, type XenGuest } from './guest.ts'
