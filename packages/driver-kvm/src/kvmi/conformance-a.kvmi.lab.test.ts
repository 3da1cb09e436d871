import { conform } from './conformance.testing.ts'

await conform('A')
