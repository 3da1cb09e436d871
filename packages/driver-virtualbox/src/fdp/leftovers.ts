import type { FdpClient } from './client.ts'
import { STATE } from './layout.ts'
import { STOPPED } from './lock-file.ts'
import { resume } from './run-state.ts'

/**
 * Takes out of the VM what processes of ours that were killed have left there: breakpoints, where nobody listens any
 * more, and a stop that nobody holds any more. Says what it was.
 */
export function takeOutLeftovers(client: FdpClient): string[] {
  const { channel } = client
  return channel.exclusively(() => {
    const { notes, server } = channel
    if (server) notes.forgetUnless((Math.imul(server.started, 31) + server.pid) | 0)
    const hasListener = notes.listener === 'other'
    const breakpoints = hasListener ? [] : notes.breakpoints()
    const state = client.state()
    const isPaused = (state & STATE.paused) !== 0
    const isHit = (state & STATE.breakpointHit) !== 0
    const isListeners = hasListener && isHit && !notes.isAnswered
    const isStopLeft = isPaused && notes.stopped === STOPPED.byHolds && !notes.othersHold && !isListeners
    if (breakpoints.length === 0 && !isStopLeft) return []
    if (!isPaused) {
      notes.stopped = STOPPED.byHolds
      client.pause()
    }
    for (const id of breakpoints) {
      client.unsetBreakpoint(id)
      notes.noteBreakpoint(id, false)
    }
    if (!hasListener) channel.takeStateChanged()
    if (!notes.othersHold && (isStopLeft || !isPaused || isHit)) resume(client)
    const left = [
      ...(breakpoints.length > 0 ? [`${breakpoints.length} breakpoint(s)`] : []),
      ...(isStopLeft || isHit ? ['a pause'] : []),
    ]
    return [`a process that was killed had left ${left.join(' and ')} in the VM: taken out`]
  })
}
