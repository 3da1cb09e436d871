import { MicrovmiError, PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual } from '../expect.ts'
import type { Trial } from '../trial.ts'

/** Other guest-physical mappings. */
export const views = behaviours('views', (define) => {
  define('are created and destroyed', ['views'], (trial) => {
    const { vm } = trial
    for (let times = 0; times < 20; times++) {
      const [first, second] = [create(trial), create(trial)]
      expect(first !== 0 && second !== 0, "create() returns 0, which is the guest's own view")
      expect(first !== second, `create() returns ${first} twice`)
      vm.views.destroy(second)
      expect(
        refuses(() => vm.views.switch(second)),
        'switch() takes a view that was destroyed',
      )
      vm.views.destroy(first)
    }
  })

  define('the guest goes on in one, and back in its own', ['views'], async (trial) => {
    const { vm } = trial
    const view = create(trial)
    trial.afterwards(() => vm.views.switch(0))
    for (let times = 0; times < 3; times++) {
      vm.views.switch(view)
      await trial.progress().goesOn('in a view')
      vm.views.switch(0)
      await trial.progress().goesOn('back in its own view')
    }
  })

  define('a view that is destroyed lets its vCPUs go back', ['views'], async (trial) => {
    const { vm } = trial
    const view = create(trial)
    vm.views.switch(view)
    await trial.progress().goesOn('in a view')
    vm.views.destroy(view)
    await trial.progress().goesOn('after its view was destroyed')
  })

  define('have access rights of their own', ['views', 'memory.access'], (trial) => {
    const { vm } = trial
    const { address } = trial.memory('scratch')
    const view = create(trial)
    const before = vm.memory.getAccess(address)
    vm.memory.setAccess(address, PAGE_SIZE, 'r', view)
    expectEqual(vm.memory.getAccess(address, view), 'r', 'the access that was set in a view')
    expectEqual(vm.memory.getAccess(address), before, "the access in the guest's own view")
    const other = create(trial)
    expectEqual(vm.memory.getAccess(address, other), before, "the access in a new view, which equals the guest's own")
  })

  define('a page of one shows another page', ['views'], async (trial) => {
    const { guest, anyVm } = trial
    const remap = trial.part(guest.remap?.bind(guest), 'Guest.remap()')
    await trial.within(Promise.resolve(remap(anyVm)), 'a remapped page')
    await trial.progress().goesOn('after a page was remapped')
  })

  define(
    'close puts the guest back in its own',
    ['views'],
    async (trial) => {
      const { vm } = trial
      vm.views.switch(vm.views.create())
      await trial.progress().goesOn('in a view')
      await vm.close()
      const next = await trial.open()
      await trial.progress(next).goesOn("after its view's session was closed")
      for (let times = 0; times < 3; times++) next.views.destroy(next.views.create())
    },
    { session: 'own' },
  )
})

/** A view that is destroyed after the case, where it is still there. */
function create(trial: Trial<'views'>): number {
  const { vm } = trial
  const view = vm.views.create()
  trial.afterwards(() => {
    refuses(() => vm.views.destroy(view))
  })
  return view
}

function refuses(action: () => void): boolean {
  try {
    action()
    return false
  } catch (error) {
    if (error instanceof MicrovmiError) return true
    throw error
  }
}
