import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { MicrovmiError } from '@microvmi/core/driver'
import { type TcpOrder, type TcpReport, type TcpWorkerData, workerSource } from './tcp-worker.ts'

/**
 * A TCP connection with blocking calls, each with a deadline: a guest may stand still while its answer is awaited. A
 * worker thread holds the socket, so that it is the same on every platform and nothing native is needed.
 */
export class TcpSocket {
  readonly #where: string
  readonly #reports: MessagePort
  readonly #worker: Worker
  /** How many reports there were: what a blocked thread can wait for. */
  readonly #count = new Int32Array(new SharedArrayBuffer(4))
  #ended: string | undefined
  #isClosed = false

  /** @param host an IP address; throws `VM_NOT_FOUND` when nothing listens there */
  constructor(host: string, port: number, deadline: number) {
    this.#where = `${host}:${port}`
    const { port1, port2 } = new MessageChannel()
    this.#reports = port1
    this.#worker = new Worker(workerSource(), {
      eval: true,
      workerData: { host, port, reports: port2, count: this.#count } satisfies TcpWorkerData,
      transferList: [port2],
      // Loaders of this process are not the worker's business.
      execArgv: [],
    })
    this.#worker.unref()
    try {
      const report = this.#next(deadline)
      if ('connected' in report) return
      throw this.#refused(this.#ended ?? 'it says something before it is connected')
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Hands all of it over to be sent. */
  send(bytes: Uint8Array): void {
    if (this.#ended !== undefined) throw this.#gone()
    this.#order({ bytes })
  }

  /** What has arrived, at least one byte; waits until `deadline` (of `performance.now()`). */
  receive(deadline: number): Uint8Array {
    const report = this.#next(deadline)
    if (!('bytes' in report)) throw this.#gone()
    this.#order({ taken: report.bytes.length })
    return report.bytes
  }

  /** What has arrived, if something has. Throws `VM_GONE` at the end of the stream. */
  receiveNow(): Uint8Array | undefined {
    try {
      return this.receive(0)
    } catch (error) {
      if (error instanceof MicrovmiError && error.code === 'TIMEOUT') return undefined
      throw error
    }
  }

  /** Calls back on the event loop after something has arrived, or the other side has hung up. */
  watch(callback: () => void): void {
    this.#worker.on('message', callback)
    this.#worker.unref()
  }

  /** Whether the watch keeps the process alive. */
  keepAlive(alive: boolean): void {
    if (alive) this.#worker.ref()
    else this.#worker.unref()
  }

  /** Harmless when repeated. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#worker.removeAllListeners('message')
    this.#worker.unref()
    this.#ended ??= ''
    this.#order({ end: true })
    this.#reports.close()
  }

  #order(order: TcpOrder): void {
    this.#reports.postMessage(order)
  }

  #next(deadline: number): TcpReport {
    for (;;) {
      if (this.#ended !== undefined) throw this.#gone()
      const before = Atomics.load(this.#count, 0)
      const report: TcpReport | undefined = receiveMessageOnPort(this.#reports)?.message
      if (report) {
        if ('ended' in report) this.#ended = report.ended
        return report
      }
      const left = deadline - performance.now()
      if (left <= 0) throw new MicrovmiError('TIMEOUT', `the VM's debugger at ${this.#where} did not answer in time`)
      Atomics.wait(this.#count, 0, before, left)
    }
  }

  #gone(): MicrovmiError {
    return new MicrovmiError('VM_GONE', `the VM's debugger at ${this.#where} has closed the connection`)
  }

  #refused(failure: string): MicrovmiError {
    return new MicrovmiError('VM_NOT_FOUND', `nothing listens at ${this.#where} (${failure || 'closed at once'})`, {
      cause: { call: 'connect', code: failure },
    })
  }
}
