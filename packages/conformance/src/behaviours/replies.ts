import type { Capability, ReplyParts } from '@microvmi/core'
import { type Behaviour, behaviours } from '../behaviour.ts'
import { expectEqual } from '../expect.ts'
import { ConformanceError } from '../failure.ts'
import { partsOf } from '../kinds.ts'
import { eventually } from '../pace.ts'
import { type AnyEvent, stimulus } from '../stimulus.ts'

/** Each part of a reply that fits a kind of event does what it says, as the fixture shows. */
export function replies(kind: string, declared: ReadonlySet<Capability>): readonly Behaviour[] {
  return behaviours(`replies: ${kind}`, (define) => {
    for (const part of partsOf(kind)) {
      const capability = `reply.${part}` as Capability
      if (!declared.has(capability)) continue
      define(`${part} shows`, [`events.${kind}` as Capability, capability], async (trial) => {
        const name = part as keyof ReplyParts
        const each = stimulus(trial, kind, ({ replies }) => replies?.[name] !== undefined)
        const show = trial.part(each.provocation.replies?.[name], `Guest.provoke.${kind}.replies.${part}`)
        let first: AnyEvent | undefined
        const intercept = each.handle((event) => {
          if (first) return
          first = event
          event.hold()
        })
        each.ask()
        const came = await eventually(trial.pace.patience, () => first !== undefined)
        if (!first) throw new ConformanceError(`no ${kind} event came: ${came}`)
        await trial.within(Promise.resolve(show(first, trial.vm)), `the effect of ${capability} on a ${kind} event`)
        expectEqual(first.answered, true, `answered after the fixture's reply with ${part}`)
        intercept.close()
        await trial.progress().goesOn(`after a ${kind} event was answered with ${part}`)
      })
    }
  })
}
