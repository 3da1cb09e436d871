import { MicrovmiError } from '@microvmi/core/driver'
import { win32Error } from '../../errors.ts'
import { lastError } from '../../native.ts'
import { guidIn } from '../guid.ts'
import type { PartitionName, PartitionSource } from '../partition.ts'
import { ERROR_ACCESS_DENIED, failed } from './failed.ts'
import { handlesOf } from './handle-table.ts'
import { type VidCalls, vidAt } from './native.ts'
import { VidPartition } from './partition.ts'
import {
  closeHandle,
  commandLine,
  duplicated,
  enableDebugPrivilege,
  type Handle,
  handleTable,
  hasEnded,
  openWorker,
  processesNamed,
} from './windows.ts'

/** The program of a VM's worker process: one for each VM. */
const WORKER = 'vmwp.exe'

/** The longest name that Hyper-V gives a VM has 100 characters. */
const NAME_CHARACTERS = 256

/** A partition with our handles to it and to its worker process. The owner closes both. */
interface Found extends PartitionName {
  readonly partition: Handle
  readonly worker: Handle
}

/** The partitions of this host through vid.dll, with handles that their worker processes have. */
export class VidSource implements PartitionSource {
  readonly way = 'vid'
  readonly #calls: VidCalls
  readonly #path: string
  readonly #timeout: number

  /** @param path the library's own path */
  constructor(path: string, timeout: number) {
    this.#path = path
    this.#timeout = timeout
    this.#calls = vidAt(path)
  }

  list(): PartitionName[] {
    const found = this.#find()
    for (const { partition, worker } of found) closeAll(partition, worker)
    return found.map(({ id, name }) => ({ id, name }))
  }

  open({ id, name }: PartitionName): VidPartition {
    const found = this.#find()
    const wanted = found.find((candidate) => candidate.id === id)
    for (const { partition, worker } of found.filter((other) => other !== wanted)) closeAll(partition, worker)
    if (!wanted) throw new MicrovmiError('VM_GONE', `the partition '${name}' (${id}) has ended meanwhile`)
    try {
      return new VidPartition({
        ...{ calls: this.#calls, path: this.#path, timeout: this.#timeout, id, name },
        ...{ partition: wanted.partition, worker: wanted.worker },
      })
    } catch (error) {
      closeAll(wanted.partition, wanted.worker)
      throw error
    }
  }

  /**
   * All partitions that worker processes hold. Throws `DENIED` where none of the workers lets itself be opened,
   * `UNSUPPORTED` where none of their handles is a partition's to this process.
   */
  #find(): Found[] {
    enableDebugPrivilege()
    const pids = processesNamed(WORKER)
    if (pids.length === 0) return []
    const workers = new Map<number, Handle>()
    const found: Found[] = []
    try {
      for (const pid of pids) {
        const worker = openWorker(pid)
        if (worker !== undefined) workers.set(pid, worker)
      }
      if (workers.size === 0) throw win32Error(`opening ${WORKER}`, lastError())
      for (const { pid, handle } of handlesOf(handleTable(), new Set(workers.keys()))) {
        const worker = workers.get(pid)
        const partition = worker === undefined ? undefined : this.#partitionBehind(worker, handle)
        if (worker === undefined || partition === undefined) continue
        found.push({ ...partition, worker })
        // One worker, one partition.
        workers.delete(pid)
      }
      const isRefused = found.length === 0 && [...workers.values()].some((worker) => !hasEnded(worker))
      if (isRefused) throw noneOpens()
      return found
    } catch (error) {
      for (const { partition, worker } of found) closeAll(partition, worker)
      throw error
    } finally {
      for (const worker of workers.values()) closeHandle(worker)
    }
  }

  /** What a worker's handle is, if it is a partition's. */
  #partitionBehind(worker: Handle, handle: number): Omit<Found, 'worker'> | undefined {
    const partition = duplicated(worker, handle)
    if (partition === undefined) return undefined
    const number = new BigUint64Array(1)
    if (this.#calls.VidGetHvPartitionId(partition, number) === 0) {
      closeHandle(partition)
      return undefined
    }
    return {
      partition,
      id: guidIn(commandLine(worker)) ?? `0x${number[0]?.toString(16)}`,
      name: this.#nameOf(partition),
    }
  }

  #nameOf(partition: Handle): string {
    const name = new Uint16Array(NAME_CHARACTERS)
    // Newer versions of Windows have no such export, or refuse it: the host's own management knows the name.
    if ((this.#calls.VidGetPartitionFriendlyName?.(partition, name, NAME_CHARACTERS) ?? 0) === 0) return ''
    const end = name.indexOf(0)
    return String.fromCharCode(...name.subarray(0, end < 0 ? NAME_CHARACTERS : end))
  }
}

/** A worker that has just started has no partition yet: Windows answers no differently then. */
function noneOpens(): MicrovmiError {
  const { code, message, cause } = failed('VidGetHvPartitionId', ERROR_ACCESS_DENIED)
  return new MicrovmiError(code, `${message}. Or try again, if the VM was just started`, { cause })
}

function closeAll(...handles: readonly Handle[]): void {
  for (const handle of handles) closeHandle(handle)
}
