import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { win32 } from 'node:path'
import { setTimeout } from 'node:timers/promises'

/** Where the stand-ins of Hyper-V's libraries are (labs/windows). */
export function libraries(...path: string[]): string {
  const root = process.env.MICROVMI_WINDOWS_LIBRARIES
  if (root === undefined) throw new Error('MICROVMI_WINDOWS_LIBRARIES is not set: run this in the Windows lab')
  return win32.join(root, ...path)
}

/** What a worker process is started with. */
export interface WorkerOptions {
  /** Guests of one index exclude each other: 0 to 7. */
  readonly index: number
  readonly name: string
  readonly vcpus?: number
  readonly mebibytes?: number
  /** Pages that are missing from the middle of its memory on. */
  readonly hole?: number
}

const SOME_GUID = '6f1dd8c4-0a52-4d9e-8f5b-3d0c9a7e1'

/** A worker process that holds a guest, as labs/windows/stand-ins/worker.c makes it. */
export class Worker {
  readonly guid: string
  /** The hypervisor's number of it, as the driver writes it: what it is called where no GUID is told (Wine, vid.dll). */
  readonly partitionId: string
  readonly name: string
  readonly vcpus: number
  /** Bytes. */
  readonly end: number
  readonly hole: { readonly start: number; readonly length: number }
  readonly #process: ChildProcess

  constructor({ index, name, vcpus = 2, mebibytes = 34, hole = 0 }: WorkerOptions) {
    this.guid = `${SOME_GUID}${String(index).padStart(3, '0')}`
    this.partitionId = `0x${(index + 2).toString(16)}`
    this.name = name
    this.vcpus = vcpus
    this.end = mebibytes * 2 ** 20
    this.hole = { start: this.end / 2, length: hole * 4096 }
    const numbers = [process.pid, index, vcpus, mebibytes, hole].map(String)
    this.#process = spawn(libraries('vmwp.exe'), [this.guid, ...numbers, name], { stdio: 'ignore' })
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** The bytes at an address that the guest does not change: each four of them tell their place (guest_fill). */
  bytesAt(address: number, length: number): Uint8Array {
    const first = Math.floor(address / 4)
    const words = new DataView(new ArrayBuffer((Math.ceil(length / 4) + 1) * 4))
    for (let index = 0; index < words.byteLength / 4; index += 1) {
      words.setUint32(index * 4, Math.imul(first + index, 2_654_435_761), true)
    }
    return new Uint8Array(words.buffer, address % 4, length)
  }

  async kill(): Promise<void> {
    if (!this.isRunning) return
    const ended = once(this.#process, 'exit')
    this.#process.kill()
    await ended
  }
}

/** Where each vCPU counts (guest.h, COUNTERS). */
export function counterOf(vcpu: number): number {
  return 0x3000 + 8 * vcpu
}

/** A worker whose guest is there: `isThere` sees it. */
export async function startedWorker(options: WorkerOptions, isThere: (worker: Worker) => Promise<boolean>) {
  const worker = new Worker(options)
  for (let tries = 0; tries < 200; tries += 1) {
    if (await isThere(worker)) return worker
    if (!worker.isRunning) break
    await setTimeout(50)
  }
  await worker.kill()
  throw new Error(`the guest of worker ${options.index} did not come up`)
}
