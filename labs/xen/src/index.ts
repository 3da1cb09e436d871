export { controlPage, type GuestFacts, type Mark, type Tick } from './facts.ts'
export { type GuestOptions, startGuest, type XenGuest } from './guest.ts'
