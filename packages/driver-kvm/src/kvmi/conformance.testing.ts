import { type Guest, register } from '@microvmi/conformance'
import { afterAll, describe, test } from 'vitest'
import { kvmi } from './driver.ts'
import { mockGuest } from './mock-guest.testing.ts'
import { startPeers } from './peers.testing.ts'

/** KVMi's pause ends with the connection, and it has no other: `setRunState` throws UNSUPPORTED. */
const WITHOUT_RUN_STATE = new Set([
  'a lease leaves the run state as it found it',
  'stops and starts the guest',
  'is refused while a lease is held',
  'outlasts the session',
  'is the same after every other call',
])

/** The conformance suite over a unix socket, with a mock guest behind a peer of one generation. */
export async function conform(generation: 'A' | 'C'): Promise<void> {
  const peers = await startPeers()
  const socket = peers.path(generation)
  // What `list` listens at.
  process.env.MICROVMI_KVMI_SOCKET = socket
  let made = 0
  let running: Promise<Guest> | undefined

  const bringUp = async (): Promise<Guest> => {
    made += 1
    const { known } = await mockGuest(peers, generation, socket, `${generation} guest ${made}`)
    return {
      ...known,
      async vanish() {
        running = undefined
        await known.vanish?.()
      },
    }
  }

  describe(`generation ${generation}`, () => {
    register(
      {
        driver: kvmi,
        slowness: 0.5,
        startup: 10_000,
        guest: () => {
          running ??= bringUp()
          return running
        },
      },
      {
        describe,
        after: afterAll,
        test: (name, options, run) =>
          test(name, options, async (context) => {
            const hindrance = "KVMi's pause ends with its connection: there is no setRunState"
            if (WITHOUT_RUN_STATE.has(name)) context.skip(hindrance)
            await run(context)
          }),
      },
    )
    afterAll(() => peers.end())
  })
}
