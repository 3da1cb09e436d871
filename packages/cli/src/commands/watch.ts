import { type EventKind, type InterceptRequest, MicrovmiError, type Vm } from '@microvmi/core'
import type { Io } from '../io.ts'
import { hex, toJson } from '../json.ts'
import { write } from '../output.ts'
import { type OpenFlags, withVm } from '../session.ts'

/** What people write for an event, and the request that it means. */
const EVENTS: Readonly<Record<string, (argument: string) => InterceptRequest>> = {
  cr0: () => ({ kind: 'cr', register: 'cr0' }),
  cr3: () => ({ kind: 'cr', register: 'cr3' }),
  cr4: () => ({ kind: 'cr', register: 'cr4' }),
  xcr0: () => ({ kind: 'cr', register: 'xcr0' }),
  msr: (argument) => ({ kind: 'msr', msr: Number(numeral(argument, 'msr:0xc0000082')) }),
  breakpoint: (argument) => ({ kind: 'breakpoint', address: numeral(argument, 'breakpoint:0xffffffff81000000') }),
  int3: () => ({ kind: 'int3' }),
  cpuid: () => ({ kind: 'cpuid' }),
  hypercall: () => ({ kind: 'hypercall' }),
  lifecycle: () => ({ kind: 'lifecycle' }),
}

/** The names that `watch` takes. */
export const EVENT_NAMES: readonly string[] = Object.keys(EVENTS)

/** `microvmi watch TARGET EVENT…` */
export function watchCommand(
  io: Io,
  target: string,
  names: readonly string[],
  flags: OpenFlags & { readonly json?: boolean; readonly count?: number; readonly seconds?: number },
): Promise<void> {
  const requests = names.map(requestOf)
  return withVm(io, target, flags, [], async (vm, signal) => {
    // Which kinds these are is known at run time only: what the VM lacks, `intercept` says.
    const watching = vm as Vm<`events.${EventKind}`>
    const [first, ...others] = requests
    if (!first) throw new MicrovmiError('BAD_ARGUMENT', `name an event: ${EVENT_NAMES.join(', ')}`)
    const intercept = watching.intercept(first, ...others).until(signal)
    const timer = flags.seconds === undefined ? undefined : setTimeout(() => intercept.close(), flags.seconds * 1000)
    let count = 0
    try {
      for await (const event of intercept) {
        // The guest need not wait until a terminal has scrolled.
        if (event.stops !== 'none') event.reply()
        count += 1
        const { kind, vcpu, complete, ...rest } = event
        const fields = fieldsOf(rest)
        const line = flags.json
          ? toJson({ kind, vcpu, complete, ...fields })
          : `vcpu ${vcpu}  ${kind}  ${printed(fields)}`
        await write(io, `${line}\n`, signal)
        if (count === flags.count) break
      }
    } finally {
      clearTimeout(timer)
    }
    if (intercept.dropped > 0)
      io.stderr.write(`${intercept.dropped} events were dropped: the output is slower than the guest\n`)
  })
}

function requestOf(text: string): InterceptRequest {
  const [name = '', ...rest] = text.split(':')
  const event = EVENTS[name]
  if (event) return event(rest.join(':'))
  throw new MicrovmiError('BAD_ARGUMENT', `'${text}' is no event to watch; there are: ${EVENT_NAMES.join(', ')}`)
}

function numeral(text: string, example: string): bigint {
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text)) throw new MicrovmiError('BAD_ARGUMENT', `write, for example, ${example}`)
  return BigInt(text)
}

/** The kind's own fields: what is data, not how the event is answered. */
function fieldsOf(event: object): Record<string, unknown> {
  const own = ['stops', 'answered', 'registers']
  return Object.fromEntries(
    Object.entries(event).filter(([name, value]) => !own.includes(name) && typeof value !== 'function'),
  )
}

function printed(fields: Record<string, unknown>): string {
  const text = (value: unknown) => (typeof value === 'bigint' ? hex(value) : String(value))
  return Object.entries(fields)
    .map(([name, value]) => `${name} ${text(value)}`)
    .join('  ')
}
