import { type InterceptRequest, MicrovmiError } from '@microvmi/core/driver'
import { bitsOf, type PageRights } from '@microvmi/page-rights'
import type { Breakpoints } from './breakpoints.ts'
import type { Connection } from './connection.ts'
import type { Control, Controls } from './controls.ts'
import type { EventReplies } from './event-replies.ts'
import { controlsFor } from './kinds.ts'
import type { Stepper } from './stepper.ts'
import type { Vcpus } from './vcpus.ts'

/** The parts that events are made of. */
export interface EventParts {
  readonly connection: Connection
  readonly vcpus: Vcpus
  readonly controls: Controls
  readonly rights: PageRights
  readonly breakpoints: Breakpoints
  readonly stepper: Stepper
  readonly replies: EventReplies
}

/**
 * Turns on what a request asks for, under core's number for it. Returns what is to be turned off again. Throws, with
 * nothing turned on.
 */
export function startEvents(parts: EventParts, request: InterceptRequest, armed: number): readonly Control[] {
  const { controls, breakpoints, rights, connection, vcpus } = parts
  const { generation } = connection
  switch (request.kind) {
    case 'breakpoint': {
      const wanted = [controls.events('breakpoint')]
      controls.enable(wanted)
      undoing(
        () => breakpoints.add(armed, request),
        () => controls.disable(wanted),
      )
      return wanted
    }
    case 'memory': {
      const wanted = controlsFor(request, controls, false)
      controls.enable(wanted)
      undoing(
        () => rights.guard(armed, request.address, request.length, bitsOf(request.access), request.view),
        () => controls.disable(wanted),
      )
      return wanted
    }
    case 'singlestep': {
      const started: number[] = []
      undoing(
        () => {
          for (const vcpu of steppedBy(request, vcpus.count)) {
            controls.startStepping(vcpu)
            started.push(vcpu)
          }
        },
        () => {
          for (const vcpu of started) controls.stopStepping(vcpu)
        },
      )
      return []
    }
    case 'cr':
    case 'msr':
    case 'int3':
    case 'cpuid':
    case 'descriptor':
    case 'hypercall': {
      const wanted = controlsFor(request, controls, generation.xsetbvHasValues)
      controls.enable(wanted)
      return wanted
    }
    default:
      throw new MicrovmiError('UNSUPPORTED', `KVMi has no events of kind ${request.kind}`)
  }
}

/** The vCPUs that a request steps all the time. */
export function steppedBy(request: Extract<InterceptRequest, { kind: 'singlestep' }>, count: number): number[] {
  if (request.onlyAsked) return []
  if (request.vcpu !== undefined) return [request.vcpu]
  return Array.from({ length: count }, (_, vcpu) => vcpu)
}

/** Does `work`, and `undo` when that fails. */
function undoing(work: () => void, undo: () => void): void {
  try {
    work()
  } catch (error) {
    try {
      undo()
    } catch (further) {
      if (!(further instanceof MicrovmiError)) throw further
    }
    throw error
  }
}
