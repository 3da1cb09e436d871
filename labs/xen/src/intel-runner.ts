import { HostRunner, type Place } from '@microvmi/lab-inside'
import { placeIn } from './host-runner.ts'
import { intelMachine } from './intel-machine.ts'

/** Runs test files in dom0 of the machine of Intel's. */
export default class IntelRunner extends HostRunner {
  protected readonly place: Place = placeIn(() => intelMachine())
}
