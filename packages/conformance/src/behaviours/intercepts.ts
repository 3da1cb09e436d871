import type { Capability, Intercept } from '@microvmi/core'
import { type Behaviour, behaviours } from '../behaviour.ts'
import { expectFits } from '../event-fields.ts'
import { expect, expectEqual, expectThrows } from '../expect.ts'
import type { AnyVm } from '../fixture.ts'
import { canStop, hasFilter } from '../kinds.ts'
import { eventually } from '../pace.ts'
import { type AnyEvent, type Stimulus, stimuli, stimulus } from '../stimulus.ts'
import type { Trial } from '../trial.ts'
import { expectPartOf } from './registers.ts'

const ROUNDS = 3
/** A guest that was seen to go on so many times in a row is not about to meet anything. */
const FREE_ROUNDS = 5

/** What holds for events of every kind: the guest goes on, whatever the app does. */
export function intercepts(kind: string): readonly Behaviour[] {
  const needs = [`events.${kind}` as Capability]

  return behaviours(`events: ${kind}`, (define) => {
    define('what nobody answers proceeds', needs, async (trial) => {
      for (const each of stimuli(trial, kind)) {
        const intercept = each.intercept()
        await each.loop(intercept, (event, count) => {
          expectFits(event, each, trial.vm)
          return count < ROUNDS
        })
        await trial.within(intercept.ended, 'the end of an intercept whose loop has ended')
        await trial.progress().goesOn(`after ${kind} events that nobody answered`)
      }
    })

    define('it is armed while somebody listens, and only then', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const intercept = each.intercept()
      await each.moment()
      await trial.progress().goesOn(`while nobody listens to ${kind}`)
      await each.loop(intercept, () => false)
      await each.moment()
      await trial.progress().goesOn(`while nobody listens to ${kind} any more`)
      await each.loop(each.intercept(), () => false)
      await trial.progress().goesOn(`after a second intercept of ${kind}`)
    })

    define('an event takes one answer', needs, async (trial) => {
      const each = stimulus(trial, kind)
      await each.loop(each.intercept(), (event, count) => {
        if (event.stops === 'none') {
          expectThrows('BAD_ARGUMENT', 'reply() to an event that stops nothing', () => event.reply())
          return false
        }
        event.reply()
        expectEqual(event.answered, true, 'answered of an event that was replied to')
        expectThrows('ALREADY_ANSWERED', 'a second reply()', () => event.reply())
        expectThrows('ALREADY_ANSWERED', 'hold() after reply()', () => event.hold())
        return count < ROUNDS
      })
      await trial.progress().goesOn(`after ${kind} events that were answered`)
    })

    define('a handler takes the events', needs, async (trial) => {
      const each = stimulus(trial, kind)
      let count = 0
      let wrong: unknown
      const intercept = each.handle((event) => {
        count += 1
        try {
          expectFits(event, each, trial.vm)
        } catch (error) {
          wrong ??= error
        }
        if (count < ROUNDS) each.ask()
      })
      each.ask()
      const came = await eventually(trial.pace.patience, () => count >= ROUNDS || wrong !== undefined)
      if (wrong !== undefined) throw wrong
      expect(came, `the handler got ${count} of ${ROUNDS} events of kind ${kind}`)
      await trial.progress().goesOn('under a handler')
      intercept.close()
      await trial.within(intercept.ended, 'the end of an intercept with a handler')
      await expectFree(trial, each, 'after a handler')
    })

    define('a handler that throws', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const mine = new Error('thrown in a handler')
      const intercept = each.handle(() => {
        throw mine
      })
      each.ask()
      const thrown = await trial.within(
        intercept.ended.then(
          () => undefined,
          (error: unknown) => error,
        ),
        `the end of an intercept of ${kind} whose handler throws`,
      )
      expectEqual(thrown, mine, 'what ended rejects with after a handler has thrown')
      await expectFree(trial, each, `after a handler of ${kind} events has thrown`)
    })

    define('a loop that is left', needs, async (trial) => {
      const each = stimulus(trial, kind)
      for (let times = 0; times < ROUNDS; times++) {
        await each.loop(each.intercept(), () => false)
        await trial.progress().goesOn(`after a loop over ${kind} events was left`)
      }
      await expectFree(trial, each, `after loops over ${kind} events were left`)
    })

    define('a loop that throws', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const mine = new Error('thrown in a loop')
      const intercept = each.intercept()
      let caught: unknown
      try {
        await each.loop(intercept, () => {
          throw mine
        })
      } catch (error) {
        caught = error
      }
      if (caught !== mine) throw caught
      await trial.within(intercept.ended, 'the end of an intercept whose loop has thrown')
      await expectFree(trial, each, `after a loop over ${kind} events has thrown`)
    })

    define('closed while events wait', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const intercept = each.intercept()
      const held = await firstHeld(each, intercept)
      await each.moment()
      intercept.close()
      intercept.close()
      expectEnded(held)
      await trial.within(intercept.ended, 'the end of an intercept that was closed')
      await expectFree(trial, each, `after an intercept of ${kind} was closed while events waited`)
    })

    define(
      'the Vm closed while events wait',
      needs,
      async (trial) => {
        const each = stimulus(trial, kind)
        const intercept = each.intercept()
        const held = await firstHeld(each, intercept)
        await each.moment()
        await trial.within(trial.vm.close(), 'close() while events wait')
        expectEnded(held)
        await trial.within(intercept.ended, 'the end of an intercept whose Vm was closed')
        const next = await trial.open()
        await expectFree(trial, each, `after the Vm was closed while ${kind} events waited`, next)
      },
      { session: 'own' },
    )

    define('equal intercepts are counted', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const seen = [0, 0]
      const again = Object.fromEntries(Object.entries(each.request).reverse()) as typeof each.request
      const first = each.handle(() => {
        seen[0] = (seen[0] ?? 0) + 1
      })
      const second = each.handle(
        () => {
          seen[1] = (seen[1] ?? 0) + 1
        },
        { request: again },
      )
      const come = async (index: 0 | 1, who: string): Promise<void> => {
        const before = seen[index] ?? 0
        each.ask()
        const came = await eventually(trial.pace.patience, () => (seen[index] ?? 0) > before)
        expect(came, `no ${kind} event comes to ${who}`)
      }
      await come(0, 'the first of two equal intercepts')
      await come(1, 'the second of two equal intercepts')
      first.close()
      await come(1, 'the second of two equal intercepts when the first was closed')
      second.close()
      await expectFree(trial, each, `after two equal intercepts of ${kind}`)
    })

    define('a signal ends it', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const controller = new AbortController()
      const intercept = each.intercept().until(controller.signal)
      await each.loop(intercept, (_, count) => {
        if (count === 1) setImmediate(() => controller.abort())
        return true
      })
      await trial.within(intercept.ended, 'the end of an intercept whose signal was aborted')
      await expectFree(trial, each, `after the signal of an intercept of ${kind} was aborted`)
    })

    if (hasFilter(kind)) {
      define('what does not fit its filter is not reported', needs, async (trial) => {
        const each = stimulus(trial, kind, ({ never }) => never !== undefined)
        const never = trial.part(each.provocation.never, `Guest.provoke.${kind}.never`)
        for (const request of never) {
          let count = 0
          const intercept = each.handle(
            () => {
              count += 1
            },
            { request },
          )
          for (let times = 0; times < ROUNDS; times++) {
            await each.moment()
            await trial.progress().goesOn('under a filter that nothing fits')
          }
          intercept.close()
          expectEqual(count, 0, `the number of ${kind} events that do not fit ${describe(request)} and`)
          await trial.progress().goesOn('after a filter that nothing fits')
        }
      })
    }

    if (!canStop(kind)) return

    define('held, it waits for its reply', needs, async (trial) => {
      const each = stimulus(trial, kind)
      const progress = trial.progress()
      await progress.goesOn('before it is intercepted')
      const events = each.intercept()[Symbol.asyncIterator]()
      const first = await each.first(events)
      skipReports(trial, first)
      first.hold()
      const second = events.next()
      await progress.standsStill(`while its ${kind} event is held`, first.stops === 'vm' ? undefined : first.vcpu)
      expectEqual(first.answered, false, 'answered of an event that is held')
      first.reply()
      expectThrows('ALREADY_ANSWERED', 'a second reply() to an event that was held', () => first.reply())
      each.ask()
      const step = await trial.within(second, `the ${kind} event after one that was held`)
      expectEqual(step.done, false, 'whether the loop has ended')
      await events.return?.()
      await progress.goesOn(`after a ${kind} event that was held`)
    })

    define('of several vCPUs, held ones are answered in any order', needs, async (trial) => {
      const each = stimulus(trial, kind, ({ everyVcpu }) => everyVcpu === true)
      if (!each.provocation.everyVcpu) {
        trial.skip(`the fixture does not say that every vCPU does it (Guest.provoke.${kind}.everyVcpu)`)
      }
      if (trial.vm.vcpuCount < 2) trial.skip('the guest has one vCPU')
      const held = new Map<number, AnyEvent>()
      const again = new Set<number>()
      await each.loop(each.intercept(), (event) => {
        if (event.stops === 'vm') trial.skip('an event stops the whole VM: there is one at a time')
        skipReports(trial, event)
        const isFirst = !held.has(event.vcpu)
        if (held.size < 2) {
          expect(isFirst, `vcpu ${event.vcpu} raises an event while one of its is held`)
          event.hold()
          held.set(event.vcpu, event)
          if (held.size === 2) for (const one of [...held.values()].reverse()) one.reply()
        } else if (!isFirst) {
          again.add(event.vcpu)
        }
        return again.size < 2
      })
      await trial.progress().goesOn(`after ${kind} events were answered in another order`)
    })

    define('the registers that come with it are those of its vCPU', [...needs, 'registers.read'], async (trial) => {
      const each = stimulus(trial, kind)
      await each.loop(each.intercept(), (event) => {
        skipReports(trial, event)
        const { registers } = event
        if (registers === undefined) return trial.skip('the hypervisor hands no registers over with it')
        expectPartOf(registers, trial.vm.readRegisters(event.vcpu), `a ${kind} event`)
        return false
      })
    })
  })
}

/** Throws unless the guest goes on where it would have met what was turned off. */
async function expectFree(trial: Trial<never>, each: Stimulus, when: string, vm?: AnyVm): Promise<void> {
  const progress = trial.progress(vm)
  for (let times = 0; times < FREE_ROUNDS; times++) {
    await each.moment(vm, trial.pace.lookout / FREE_ROUNDS)
    await progress.goesOn(when)
  }
}

async function firstHeld(each: Stimulus, intercept: Intercept<AnyEvent>): Promise<AnyEvent> {
  const event = await each.first(intercept[Symbol.asyncIterator]())
  event.hold()
  return event
}

/** Throws unless the intercept's end has answered what was held. */
function expectEnded(held: AnyEvent): void {
  if (held.stops === 'none') return
  expectEqual(held.answered, true, 'answered of an event that was held when its intercept ended')
  expectThrows('CLOSED', 'reply() after the intercept has ended', () => held.reply())
}

function skipReports(trial: Trial<never>, event: AnyEvent): void {
  if (event.stops === 'none') trial.skip('its events are reports: they stop nothing')
}

function describe(request: object): string {
  return JSON.stringify(request, (_, value: unknown) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value))
}
