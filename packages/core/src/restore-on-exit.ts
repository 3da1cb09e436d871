import type { OpenVm } from './vm.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** What is used of node's `process`, so that core needs no node types. */
interface Process {
  readonly pid: number
  on(event: string, listener: () => void): void
  off(event: string, listener: () => void): void
  kill(pid: number, signal: string): void
}

/**
 * Releases the guest when the process exits or is told to end by a signal; the signal then takes its course. Where
 * the runtime has no `process` there is nothing to listen to.
 */
export function restoreOnExit(vm: OpenVm): void {
  const { process } = globalThis as { process?: Process }
  if (!process) return
  const onExit = () => vm.release()
  const handlers = SIGNALS.map((signal) => {
    const onSignal = () => {
      vm.release()
      process.kill(process.pid, signal)
    }
    return { signal, onSignal }
  })
  process.on('exit', onExit)
  for (const { signal, onSignal } of handlers) process.on(signal, onSignal)
  vm.onRelease(() => {
    process.off('exit', onExit)
    for (const { signal, onSignal } of handlers) process.off(signal, onSignal)
  })
}
