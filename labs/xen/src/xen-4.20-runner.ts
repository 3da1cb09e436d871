import { HostRunner, type Place } from '@microvmi/lab-inside'
import { placeIn } from './host-runner.ts'
import { xenMachine } from './machine.ts'

/** Runs test files in dom0 of Xen 4.20. */
export default class Xen420Runner extends HostRunner {
  protected readonly place: Place = placeIn(() => xenMachine({ version: '4.20' }))
}
