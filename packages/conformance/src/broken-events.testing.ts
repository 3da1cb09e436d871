import { type InterceptRequest, MicrovmiError } from '@microvmi/core'
import type { BackendEvent, Reply } from '@microvmi/core/driver'
import { backends, changed, delivering, isOf, type Mutation, part } from './break-driver.testing.ts'

type Breaks = Mutation['breaks']

/** What is answered is forgotten: the guest waits for ever. */
const loses = (kind: string): Breaks =>
  part('events', (events) => ({
    reply: (event, parts) => {
      if (event.kind !== kind) events.reply(event, parts)
    },
  }))

/** What is turned off goes on, and nobody answers it any more. */
const staysOn: Breaks = part('events', (events) => {
  const off = new Set<number>()
  return {
    listen: (sink) =>
      events.listen({
        deliver: (event) => {
          if (!event.armed.every((number) => off.has(number))) sink.deliver(event)
        },
        fail: (error) => sink.fail(error),
      }),
    disarm: (number) => void off.add(number),
  }
})

/** An answer is sent a little later, and what is turned off before is not answered at all. */
const dropsOnDisarm: Breaks = part('events', (events) => {
  const pending = new Set<NodeJS.Immediate>()
  return {
    reply: (event, parts) => {
      const later = setImmediate(() => {
        pending.delete(later)
        try {
          events.reply(event, parts)
        } catch (error) {
          // The test may be over, and its guest gone.
          if (!(error instanceof MicrovmiError && error.code === 'VM_GONE')) throw error
        }
      })
      pending.add(later)
    },
    disarm: () => {
      for (const one of pending) clearImmediate(one)
    },
  }
})

/** An answer within the delivery of its event is overlooked. */
const deafWithinDelivery: Breaks = part('events', (events) => {
  let within = false
  return {
    listen: (sink) =>
      events.listen({
        deliver: (event) => {
          within = true
          try {
            sink.deliver(event)
          } finally {
            within = false
          }
        },
        fail: (error) => sink.fail(error),
      }),
    reply: (event, parts) => {
      if (!within) events.reply(event, parts)
    },
  }
})

/** A request is good for one event. */
const once: Breaks = part('events', (events) => {
  const spent = new Set<number>()
  return {
    listen: (sink) =>
      events.listen({
        deliver: (event) => {
          if (event.armed.every((number) => spent.has(number))) {
            if (event.stops !== 'none') events.reply(event, {})
            return
          }
          for (const number of event.armed) spent.add(number)
          sink.deliver(event)
        },
        fail: (error) => sink.fail(error),
      }),
  }
})

/** Nothing waits for its answer. */
const impatient = (kind: string): Breaks =>
  part('events', (events) => ({
    listen: (sink) =>
      events.listen({
        deliver: (event) => {
          sink.deliver(event)
          if (event.kind === kind) events.reply(event, {})
        },
        fail: (error) => sink.fail(error),
      }),
    reply: (event, parts) => {
      if (event.kind !== kind) events.reply(event, parts)
    },
  }))

/** Only the event that came first of those that wait can be answered. */
const inOrder: Breaks = part('events', (events) => {
  const waiting: BackendEvent[] = []
  return {
    listen: (sink) =>
      events.listen({
        deliver: (event) => {
          waiting.push(event)
          sink.deliver(event)
        },
        fail: (error) => sink.fail(error),
      }),
    reply: (event, parts) => {
      if (waiting[0] !== event) return
      waiting.shift()
      events.reply(event, parts)
    },
  }
})

/** Nothing is delivered. */
const silent: Breaks = delivering(() => () => {})

/** The VM is stopped to turn something off, and stays so. */
const stopsOnDisarm: Breaks = part('events', (events, { running }) => ({
  disarm: (number) => {
    events.disarm(number)
    running?.setState('paused')
  },
}))

const stopsOnRelease: Breaks = backends((backend) =>
  changed(backend, {
    release() {
      backend.release()
      backend.running?.setState('paused')
    },
  }),
)

/** Filters are taken and ignored. */
const unfiltered: Breaks = part('events', (events) => ({ arm: (request, number) => events.arm(loud(request), number) }))

function loud(request: InterceptRequest): InterceptRequest {
  switch (request.kind) {
    case 'cr':
      return { kind: 'cr', register: request.register, onChange: false }
    case 'msr':
      return { kind: 'msr', msr: 0xc000_0100 }
    case 'breakpoint':
      return 'address' in request ? { kind: 'breakpoint', address: request.address } : request
    case 'watchpoint':
      return { kind: 'watchpoint', address: request.address, length: request.length, access: request.access }
    case 'memory':
      return { kind: 'memory', address: 0x10_0000, length: 0x50_0000, access: request.access }
    case 'singlestep':
    case 'cpuid':
    case 'io':
    case 'interrupt':
      return { kind: request.kind }
    default:
      return request
  }
}

/** The registers that come with an event are stale. */
const stale: Breaks = delivering((deliver) => (event) => {
  const { registers } = event
  deliver(
    registers
      ? changed(event, {
          registers: () => {
            const read = registers()
            return { ...read, rbp: read.rbp + 1n }
          },
        })
      : event,
  )
})

/** For each case about a kind of event, a driver that it catches. */
export function brokenIntercept(kind: string, name: string): Mutation | undefined {
  const stops = kind !== 'lifecycle'
  const lost = { how: 'answers are lost', breaks: loses(kind), says: /makes no progress|did not come/ }
  const on = { how: 'what is turned off goes on', breaks: staysOn, says: /makes no progress|did not come/ }
  const dropped = {
    how: 'answers on their way are lost at disarm',
    breaks: dropsOnDisarm,
    says: /makes no progress|did not come/,
  }
  const mute = { how: 'no event comes', breaks: silent, says: /event 1 of kind \w+ did not come|got 0 of 3 events/ }
  const stopped = { how: 'disarm stops the VM', breaks: stopsOnDisarm, says: /makes no progress|did not come/ }
  const table: Readonly<Record<string, Mutation>> = {
    'what nobody answers proceeds': stops ? lost : mute,
    'it is armed while somebody listens, and only then': stops ? on : stopped,
    'an event takes one answer': stops ? lost : mute,
    'a handler takes the events': stops
      ? {
          how: 'answers within a delivery are overlooked',
          breaks: deafWithinDelivery,
          says: /got \d of 3 events|makes no progress under a handler/,
        }
      : mute,
    'a handler that throws': stops ? dropped : stopped,
    'a loop that is left': stops ? on : stopped,
    'a loop that throws': stops ? dropped : stopped,
    'closed while events wait': stops ? dropped : stopped,
    'the Vm closed while events wait': {
      how: 'close stops the VM',
      breaks: stopsOnRelease,
      says: /makes no progress after the Vm was closed/,
    },
    'held, it waits for its reply': {
      how: 'an event does not wait',
      breaks: impatient(kind),
      says: /makes progress while its \w+ event is held/,
    },
    'of several vCPUs, held ones are answered in any order': {
      how: 'events can be answered in their own order only',
      breaks: inOrder,
      says: /event \d+ of kind \w+ did not come/,
    },
    'equal intercepts are counted': {
      how: 'a request is good for one event',
      breaks: once,
      says: /no \w+ event comes to the second/,
    },
    'a signal ends it': stops ? on : stopped,
    'what does not fit its filter is not reported': {
      how: 'filters are ignored',
      breaks: unfiltered,
      says: /the number of \w+ events that do not fit .* is \d+, not 0/,
    },
    'the registers that come with it are those of its vCPU': {
      how: 'the registers of an event are stale',
      breaks: stale,
      says: /rbp of a \w+ event is/,
    },
  }
  return table[name]
}

/** For each part of a reply to a kind of event, a driver that ignores it. */
export function brokenReply(kind: string, part: keyof Reply): Mutation {
  // The guest receives its own exception anyway: here, it does not.
  const denies = part === 'reinject' && kind !== 'breakpoint'
  const change = ({ [part]: _, ...others }: Reply): Reply => (denies ? { ...others, deny: true } : others)
  return {
    how: denies ? 'reinject is taken for deny' : `${part} is ignored`,
    breaks: partIgnored(isOf(kind), change),
    says: / is .*, not |this does not happen|the effect of reply\.\w+ on a \w+ event took longer/,
  }
}

function partIgnored(concerns: (event: BackendEvent) => boolean, change: (parts: Reply) => Reply): Breaks {
  return part('events', (events) => ({
    reply: (event, parts) => events.reply(event, concerns(event) ? change(parts) : parts),
  }))
}

/** Puts int3 bytes back where they were, behind everything. */
const leavesBytes: Breaks = backends((backend) => {
  const { memory, events } = backend
  if (!memory || !events) throw new Error('the backend has no memory or no events')
  const patched = new Set<number>()
  return changed(backend, {
    events: changed(events, {
      arm(request, number) {
        events.arm(request, number)
        for (const address of memory.patches?.addresses() ?? []) patched.add(address)
      },
    }),
    release() {
      backend.release()
      for (const address of patched) memory.write?.(address, Uint8Array.of(0xcc))
    },
  })
})

/** Core does not know which bytes are the driver's own. */
const unknownPatches: Breaks = part('memory', (memory) => ({
  // Core looks for it, and finds none.
  ...({ patches: undefined } as object),
  read: (address, into) => memory.read(address, into),
}))

/** For each case about breakpoints, a driver that it catches. */
export const brokenBreakpoints: Readonly<Record<string, Mutation>> = {
  'breakpoints: are hidden from reads, pieces and windows': {
    how: 'the bytes of breakpoints are seen',
    breaks: unknownPatches,
    says: /read\(\) of a breakpoint that is armed: the byte at 0x\w+ is 0xcc/,
  },
  'breakpoints: are gone after close': {
    how: 'close leaves int3 bytes',
    breaks: leavesBytes,
    says: /memory after the breakpoint's session was closed: the byte at 0x\w+ is 0xcc/,
  },
  'breakpoints: are gone after release': {
    how: 'release leaves int3 bytes',
    breaks: leavesBytes,
    says: /memory after release\(\): the byte at 0x\w+ is 0xcc/,
  },
  'breakpoints: survive a write over them': {
    how: 'a write destroys the breakpoint under it',
    breaks: unknownPatches,
    says: /the breakpoint is not hit after a write over it/,
  },
}
