import { MicrovmiError } from '@microvmi/core/driver'
import { clearLastError, lastError, wideText, words } from '../../native.ts'
import { guidIn } from '../guid.ts'
import type { PartitionName, PartitionSource } from '../partition.ts'
import { HvlibConfig } from './config.ts'
import { failed } from './failed.ts'
import { type HvlibCalls, hvlibAt, INFORMATION } from './native.ts'
import { type HvlibEntry, HvlibPartition } from './partition.ts'

/** More partitions than any host runs: a greater count is none (1024 is Hyper-V's own limit of running VMs). */
const MOST_PARTITIONS = 4096

/** The partitions of this host through hvlib.dll. */
export class HvlibSource implements PartitionSource {
  readonly way = 'hvlib'
  readonly #calls: HvlibCalls
  readonly #path: string
  readonly #timeout: number
  readonly #config = new HvlibConfig()

  /** @param path the library's own path */
  constructor(path: string, timeout: number) {
    this.#timeout = timeout
    const { calls } = hvlibAt(path)
    this.#path = path
    this.#calls = calls
    clearLastError()
    if (calls.SdkGetDefaultConfig(this.#config.bytes) === 0) throw failed('SdkGetDefaultConfig', lastError())
    this.#config.leaveGuestRunning()
  }

  list(): HvlibEntry[] {
    const count = new BigUint64Array(1)
    clearLastError()
    const address = BigInt(this.#calls.SdkEnumPartitions(count, this.#config.bytes))
    const partitions = count[0] ?? 0n
    if (address === 0n) {
      const error = lastError()
      if (partitions === 0n && error === 0) return []
      throw failed('SdkEnumPartitions', error)
    }
    if (partitions > MOST_PARTITIONS) {
      throw new MicrovmiError('PROTOCOL', `SdkEnumPartitions tells of ${partitions} partitions: no host has so many`)
    }
    return words(address, Number(partitions)).map((handle) => this.#entryOf(handle))
  }

  open({ id, name }: PartitionName): HvlibPartition {
    const entry = this.list().find((candidate) => candidate.id === id && candidate.name === name)
    if (!entry) throw new MicrovmiError('VM_GONE', `the partition '${name}' (${id}) has ended meanwhile`)
    clearLastError()
    if (this.#calls.SdkSelectPartition(entry.handle) === 0) throw failed('SdkSelectPartition', lastError())
    try {
      return new HvlibPartition({
        ...{ calls: this.#calls, entry, config: this.#config, timeout: this.#timeout, path: this.#path },
        isListed: () => this.list().some((other) => other.id === id),
      })
    } catch (error) {
      this.#calls.SdkClosePartition(entry.handle)
      throw error
    }
  }

  #entryOf(handle: bigint): HvlibEntry {
    const guid = guidIn(this.#text(handle, INFORMATION.vmGuidString))
    const number = BigInt(this.#calls.SdkGetData2(handle, INFORMATION.partitionId))
    return {
      handle,
      name: this.#text(handle, INFORMATION.partitionFriendlyName),
      id: guid ?? `0x${number.toString(16)}`,
      type: this.#text(handle, INFORMATION.vmTypeString),
    }
  }

  /** A text that the library owns; empty where it has none. */
  #text(handle: bigint, what: number): string {
    const address = new BigUint64Array(1)
    return this.#calls.SdkGetData(handle, what, address) === 0 ? '' : wideText(address[0] ?? 0n)
  }
}
