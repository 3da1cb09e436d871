import { MicrovmiError, type RunBackend, type RunState } from '@microvmi/core/driver'
import type { Connection } from './connection.ts'
import type { Vcpus } from './vcpus.ts'

/** Pausing through KVMi. It ends with the connection: the kernel lets the guest go on then. */
export class KvmiRunState implements RunBackend {
  readonly #connection: Connection
  readonly #vcpus: Vcpus

  constructor(connection: Connection, vcpus: Vcpus) {
    this.#connection = connection
    this.#vcpus = vcpus
  }

  pause(): void {
    this.#vcpus.pause()
  }

  resume(): void {
    this.#vcpus.resume()
  }

  /** What KVMi knows of: it does not tell whether QEMU has stopped the VM. */
  state(): RunState {
    // Throws when the VM has gone.
    this.#connection.poll()
    return this.#vcpus.isPaused ? 'paused' : 'running'
  }

  setState(): void {
    throw new MicrovmiError(
      'UNSUPPORTED',
      "KVMi's pause ends with its connection. Hold a lease from pause(), or use QEMU's monitor (stop, cont)",
    )
  }
}
