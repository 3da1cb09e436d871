// JavaScript, so that the sources run it as it is: a worker thread has no one who strips types. The build checks it.
/**
 * Does the waiting of a TcpSocket: the thread that asked is blocked meanwhile, and its event loop with it.
 *
 * @typedef {{ bytes: Uint8Array }} Data
 * @typedef {Data | { taken: number } | { end: true }} Order what the socket's owner sends
 * @typedef {Data | { connected: true } | { ended: string }} Report what it is told: `ended` names an error, or is empty
 */
import { createConnection } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'

/** Bytes that wait for their reader at most: then the other side has to. */
const MOST_UNREAD = 2 ** 20

/** @type {{ host: string, port: number, reports: import('node:worker_threads').MessagePort, count: Int32Array }} */
const { host, port, reports, count } = workerData
let unread = 0

/** @param {Report} report */
function tell(report) {
  reports.postMessage(report)
  Atomics.add(count, 0, 1)
  Atomics.notify(count, 0)
  // For the owner's event loop, where it is not blocked: it looks then.
  parentPort?.postMessage(undefined)
}

const socket = createConnection({ host, port, noDelay: true })
socket.on('connect', () => tell({ connected: true }))
socket.on('data', (bytes) => {
  unread += bytes.length
  if (unread > MOST_UNREAD) socket.pause()
  tell({ bytes })
})
let failure = ''
socket.on('error', (/** @type {NodeJS.ErrnoException} */ error) => {
  failure = error.code ?? error.message
})
socket.on('close', () => {
  tell({ ended: failure })
})
reports.on('message', (/** @type {Order} */ order) => {
  if ('bytes' in order) {
    socket.write(order.bytes)
  } else if ('taken' in order) {
    unread -= order.taken
    if (unread <= MOST_UNREAD) socket.resume()
  } else {
    socket.destroy()
    reports.close()
  }
})
