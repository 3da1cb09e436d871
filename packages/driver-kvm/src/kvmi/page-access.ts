import type { PageRightsOf } from '@microvmi/page-rights'
import type { Connection } from './connection.ts'
import { kernelError } from './errors.ts'
import type { KvmiMemory } from './guest-memory.ts'

/** Entries that fit one message: (8184 - 8) / 16 bytes. */
const MOST_ENTRIES = 511

/** Pages' rights, as KVMi is told of them. It tells nothing back, and nobody else sets rights while we are connected. */
export function pageAccess(connection: Connection, memory: KvmiMemory): PageRightsOf {
  return {
    firstMissing: (address, length) => memory.firstMissing(address, length),
    set(view, frames, rights) {
      const { requests } = connection
      connection.askAll(
        Math.ceil(frames.length / MOST_ENTRIES),
        (message, index) => {
          const part = [index * MOST_ENTRIES, (index + 1) * MOST_ENTRIES] as const
          requests.setPageAccess(message, view, frames.slice(...part), rights.slice(...part))
        },
        ({ error }) => {
          if (error !== 0) throw kernelError(error, 'setting page rights (EPT has no write without read)')
        },
      )
    },
  }
}
