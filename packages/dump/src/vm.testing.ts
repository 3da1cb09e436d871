import { type MemoryPiece, open, type PiecesOptions, type Vm } from '@microvmi/core'
import { type Backend, defineDriver } from '@microvmi/core/driver'

/** A VM whose memory comes in the pieces that a test gives, and a record of its pauses. */
export async function vmOf(pieces: () => Iterable<MemoryPiece>, romFrom = Number.POSITIVE_INFINITY) {
  const calls: string[] = []
  const backend = {
    name: 'guest',
    id: '1',
    hypervisor: 'Test 1.0',
    vcpuCount: 1,
    capabilities: ['memory.read', 'memory.regions', 'pause'],
    memory: {
      read: () => 0,
      layout: () => ({
        generation: 0,
        ranges: [...pieces()].map(({ address, length }) => ({
          start: address,
          length,
          kind: address < romFrom ? 'ram' : 'rom',
        })),
      }),
      async *pieces({ within }: PiecesOptions) {
        for (const piece of pieces()) if (!within || piece.address < within.length) yield piece
      },
    },
    running: {
      pause: () => calls.push('pause'),
      resume: () => calls.push('resume'),
      state: () => 'running',
      setState: () => undefined,
    },
    release() {},
    async close() {},
  } as const satisfies Backend
  const driver = defineDriver<object>()({
    scheme: 'test',
    package: 'test 1.0.0',
    contract: { major: 0, minor: 1 },
    promises: ['memory.read', 'memory.regions', 'pause'],
    possible: [],
    options: {},
    probe: async () => ({ usable: true }),
    list: async () => [],
    open: async () => backend,
  })
  const vm: Vm<'memory.read' | 'memory.regions' | 'pause'> = await open(driver, { vm: 'guest' })
  return { vm, calls }
}
