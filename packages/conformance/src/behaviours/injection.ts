import { behaviours } from '../behaviour.ts'
import { expect } from '../expect.ts'
import { eventually } from '../pace.ts'

/** `inject`. */
export const injection = behaviours('injection', (define) => {
  define('the guest takes what is injected', ['inject'], async (trial) => {
    const { vm, guest } = trial
    const known = trial.part(guest.injection, 'Guest.injection')
    for (let times = 1; times <= 3; times++) {
      const before = BigInt(await known.count(trial.anyVm))
      vm.inject(known.vcpu, known.injection)
      const taken = await eventually(trial.pace.patience, async () => BigInt(await known.count(trial.anyVm)) > before)
      expect(taken, `the guest did not take injection ${times} (${known.injection.type})`)
    }
    await trial.progress().goesOn('after injections')
  })
})
