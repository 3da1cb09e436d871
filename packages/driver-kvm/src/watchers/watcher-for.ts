import { type InterceptRequest, MicrovmiError } from '@microvmi/core/driver'
import { BreakpointWatcher } from './breakpoint.ts'
import { ControlRegisterWatcher } from './control-register.ts'
import { DebugExceptionWatcher, Int3Watcher } from './exception.ts'
import { MsrWatcher } from './model-specific.ts'
import { SingleStepWatcher } from './single-step.ts'
import type { Watcher } from './watcher.ts'
import { WatchpointWatcher } from './watchpoint.ts'

/** What sees the events of a request. Throws `UNSUPPORTED` for what QEMU cannot show. */
export function watcherFor(request: InterceptRequest): Watcher {
  switch (request.kind) {
    case 'breakpoint':
      return new BreakpointWatcher(request)
    case 'int3':
      return new Int3Watcher()
    case 'debug':
      return new DebugExceptionWatcher()
    case 'watchpoint':
      return new WatchpointWatcher(request)
    case 'singlestep':
      return new SingleStepWatcher(request)
    case 'cr':
      return new ControlRegisterWatcher(request)
    case 'msr':
      return new MsrWatcher(request)
    default:
      throw new MicrovmiError('UNSUPPORTED', `QEMU's gdbstub shows no events of kind ${request.kind}`)
  }
}
