import type { EventKind, Intercept, InterceptRequest, VmEvent } from '@microvmi/core'
import { ConformanceError, Skipped } from './failure.ts'
import type { AnyVm, Provocation } from './fixture.ts'
import { sleep } from './pace.ts'
import type { Trial } from './trial.ts'

/** An event of whatever kind, with every part of a reply. */
export type AnyEvent = VmEvent<EventKind>

/** How one kind of event is brought about in a case, and listened to. */
export class Stimulus {
  readonly kind: string
  readonly provocation: Provocation
  readonly #trial: Trial<never>
  /** Rejects when the fixture could not provoke an event. */
  readonly #failed: Promise<never>
  #fail: (error: unknown) => void = () => {}
  #asked: 'no' | 'once' | 'again' = 'no'

  constructor(trial: Trial<never>, kind: string, provocation: Provocation) {
    this.#trial = trial
    this.kind = kind
    this.provocation = provocation
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.#failed.catch(() => undefined)
  }

  get request(): InterceptRequest {
    return this.provocation.request
  }

  /** Intercepts without a listener yet. It is closed after the case. */
  intercept(vm: AnyVm = this.#trial.anyVm): Intercept<AnyEvent> {
    const intercept = vm.intercept(this.request)
    this.#trial.afterwards(() => intercept.close())
    return intercept
  }

  /** Intercepts with a handler. */
  handle(
    handler: (event: AnyEvent) => void,
    { request = this.request, vm = this.#trial.anyVm }: { request?: InterceptRequest; vm?: AnyVm | undefined } = {},
  ): Intercept<never> {
    const intercept = vm.intercept(request, handler)
    // Who waits for it, sees; a case that ends otherwise need not.
    intercept.ended.catch(() => undefined)
    this.#trial.afterwards(() => intercept.close())
    return intercept
  }

  /** Asks the guest for one more event. What is asked while the fixture is at it comes behind, once. */
  ask(vm: AnyVm = this.#trial.anyVm): void {
    if (this.#asked === 'again' || !this.provocation.provoke) return
    if (this.#asked === 'once') {
      this.#asked = 'again'
      return
    }
    this.#asked = 'once'
    // Not from within what the guest may wait for.
    setImmediate(async () => {
      try {
        await this.provocation.provoke?.(vm)
      } catch (error) {
        this.#fail(error)
      }
      const isAskedAgain = this.#asked === 'again'
      this.#asked = 'no'
      if (isAskedAgain) this.ask(vm)
    })
  }

  /**
   * Runs a loop over an intercept until `body` returns false, or for ever. Each event has the time that what must
   * happen has; the loop goes on in its own way, so that `break` and exceptions are those of an app.
   */
  async loop(
    intercept: Intercept<AnyEvent>,
    body: (event: AnyEvent, count: number) => boolean | Promise<boolean>,
  ): Promise<void> {
    const watchdog = new Watchdog(this.#trial.pace.patience)
    const looping = async (): Promise<void> => {
      let count = 0
      for await (const event of intercept) {
        count += 1
        watchdog.stop()
        if (!(await body(event, count))) break
        this.ask()
        watchdog.feed(`event ${count + 1} of kind ${this.kind}`)
      }
    }
    const loop = looping()
    this.ask()
    watchdog.feed(`event 1 of kind ${this.kind}`)
    try {
      await Promise.race([loop, watchdog.starved, this.#failed])
    } finally {
      watchdog.stop()
    }
  }

  /** The first event of a fresh iteration, which stays open. */
  async first(events: AsyncIterator<AnyEvent>): Promise<AnyEvent> {
    this.ask()
    const step = await Promise.race([this.#trial.within(events.next(), `an event of kind ${this.kind}`), this.#failed])
    if (step.done) throw new ConformanceError(`the intercept of ${this.kind} ended before its first event`)
    return step.value
  }

  /** Lets a moment pass in which more events may come. */
  async moment(vm?: AnyVm, milliseconds: number = this.#trial.pace.lookout): Promise<void> {
    this.ask(vm)
    await Promise.race([sleep(milliseconds), this.#failed])
  }
}

/** The ways in which the fixture brings about events of a kind; skips the case for none. */
export function stimuli(trial: Trial<never>, kind: string): [Stimulus, ...Stimulus[]] {
  const provoke: Readonly<Record<string, Provocation | readonly Provocation[] | undefined>> = trial.guest.provoke ?? {}
  const given = provoke[kind]
  const [first, ...others] = given === undefined ? [] : isList(given) ? given : [given]
  if (!first) throw new Skipped(`the fixture leaves out Guest.provoke.${kind}`)
  const stimulus = (provocation: Provocation) => new Stimulus(trial, kind, provocation)
  return [stimulus(first), ...others.map(stimulus)]
}

/** The first of them that `fits`, or simply the first. */
export function stimulus(
  trial: Trial<never>,
  kind: string,
  fits: (provocation: Provocation) => boolean = () => true,
): Stimulus {
  const all = stimuli(trial, kind)
  return all.find(({ provocation }) => fits(provocation)) ?? all[0]
}

function isList(given: Provocation | readonly Provocation[]): given is readonly Provocation[] {
  return Array.isArray(given)
}

/** Barks when it is not fed in time. */
class Watchdog {
  readonly starved: Promise<never>
  readonly #milliseconds: number
  #bark: (error: Error) => void = () => {}
  #timer: NodeJS.Timeout | undefined

  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds
    this.starved = new Promise((_, reject) => {
      this.#bark = reject
    })
    this.starved.catch(() => undefined)
  }

  feed(awaited: string): void {
    this.stop()
    this.#timer = setTimeout(() => {
      this.#bark(new ConformanceError(`${awaited} did not come within ${Math.round(this.#milliseconds)} ms`))
    }, this.#milliseconds)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
