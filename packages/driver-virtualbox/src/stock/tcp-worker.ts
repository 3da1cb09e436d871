import type * as Net from 'node:net'
import type { MessagePort, parentPort } from 'node:worker_threads'

/** What the worker is made with. */
export interface TcpWorkerData {
  readonly host: string
  readonly port: number
  /** Takes {@link TcpOrder}s, and gives {@link TcpReport}s. */
  readonly reports: MessagePort
  /** Counts the reports: what a blocked thread can wait for. */
  readonly count: Int32Array
}

/** What the socket's owner sends. */
export type TcpOrder = { readonly bytes: Uint8Array } | { readonly taken: number } | { readonly end: true }

/** What it is told: `ended` names an error, or is empty. */
export type TcpReport = { readonly connected: true } | { readonly bytes: Uint8Array } | { readonly ended: string }

/**
 * Does the waiting of a TcpSocket: the thread that asked is blocked meanwhile, and its event loop with it.
 *
 * It runs in a worker thread from its own text (see {@link workerSource}), so that it needs no file of its own: a worker
 * has nobody who strips types from one, and who bundles an app leaves it behind. So it uses nothing from outside but
 * its arguments, and names no inner function: some compilers would call one of theirs for each.
 */
function holdConnection(
  net: typeof Net,
  owner: typeof parentPort,
  { host, port, reports, count }: TcpWorkerData,
): void {
  /** Bytes that wait for their reader at most: then the other side has to. */
  const mostUnread = 2 ** 20
  const state = {
    unread: 0,
    failure: '',
    tell(report: TcpReport): void {
      reports.postMessage(report)
      Atomics.add(count, 0, 1)
      Atomics.notify(count, 0)
      // For the owner's event loop, where it is not blocked: it looks then.
      owner?.postMessage(undefined)
    },
  }
  const socket = net.createConnection({ host, port, noDelay: true })
  socket.on('connect', () => state.tell({ connected: true }))
  socket.on('data', (bytes) => {
    state.unread += bytes.length
    if (state.unread > mostUnread) socket.pause()
    state.tell({ bytes: typeof bytes === 'string' ? new Uint8Array() : bytes })
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    state.failure = error.code ?? error.message
  })
  socket.on('close', () => state.tell({ ended: state.failure }))
  reports.on('message', (order: TcpOrder) => {
    if ('bytes' in order) {
      socket.write(order.bytes)
    } else if ('taken' in order) {
      state.unread -= order.taken
      if (state.unread <= mostUnread) socket.resume()
    } else {
      socket.destroy()
      reports.close()
    }
  })
}

/** The program of the worker, for `new Worker(…, { eval: true })`: CommonJS, whose `require` it has. */
export function workerSource(): string {
  const threads = `require('node:worker_threads')`
  return `(${holdConnection})(require('node:net'), ${threads}.parentPort, ${threads}.workerData)`
}
