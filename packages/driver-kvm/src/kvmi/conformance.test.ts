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

const peers = await startPeers()
afterAll(() => peers.end())

describe.each(['A', 'C'] as const)('generation %s', (generation) => {
  const socket = peers.path(generation)
  // What `list` listens at.
  process.env.MICROVMI_KVMI_SOCKET = peers.path('A')
  let made = 0
  let running: Promise<Guest> | undefined

  const bringUp = async (): Promise<Guest> => {
    made += 1
    const { known } = await mockGuest(peers, generation, socket, `${generation} guest ${made}`)
    return {
      ...known,
      listed: generation === 'A',
      async vanish() {
        running = undefined
        await known.vanish?.()
      },
    }
  }

  register(
    {
      driver: kvmi,
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
          if (WITHOUT_RUN_STATE.has(name))
            context.skip("KVMi's pause ends with its connection: there is no setRunState")
          await run(context)
        }),
    },
  )
})
