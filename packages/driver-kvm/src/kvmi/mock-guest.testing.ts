import type { AnyVm, Guest } from '@microvmi/conformance'
import { type Described, equal, processOf, Shown } from './mock-events.testing.ts'
import type { Peers } from './peers.testing.ts'

const PAGE = 4096
/** Low RAM is used neither by the mock guest's kernel nor by its processes. */
const KNOWN = 0x1_0000
const SCRATCH = 0x4_0000
/** The window of video memory: from the end of low RAM to the ROM. */
const HOLE = { start: 0xa_0000, length: 0x5_0000 }
const HIGH_START = 2 ** 32
const HIGH = 2 ** 20

/** A process that counts its rounds and passes a nop in each. */
const PROBER = `
start:
  mov rbx, DATA
  load64 rax, [rbx]
  add rax, 1
  store64 [rbx], rax
here:
  nop
  mov rdx, 100
wait:
  sub rdx, 1
  jne wait
  jmp start
`

/** Starts a mock guest behind a peer; what is known of it comes from the mock, by another way than the driver's. */
export async function mockGuest(
  peers: Peers,
  generation: 'A' | 'C',
  socket: string,
  name: string,
): Promise<{ readonly known: Guest; readonly peer: number }> {
  const uuid = Buffer.from(name.padEnd(16).slice(0, 16)).toString('hex')
  const processes = (['caller', 'counter', 'prober'] as const).flatMap((kind) =>
    [0, 1].map((vcpu) => ({ name: `${kind}${vcpu}`, program: kind === 'prober' ? { source: PROBER } : kind })),
  )
  const clock = { clock: 'real', speed: 400_000, timeSlice: 300 } as const
  const guest = { name, ...clock, memory: 4 * 2 ** 20, highMemory: HIGH, vcpus: 2, journalLength: 100, processes }
  const peer = await peers.start({ generation, socket, guest, uuid })
  await peers.run(peer, 1000)
  const bytes = Uint8Array.from({ length: 3 * PAGE }, (_, index) => (index * 7 + (index >> 8)) % 251)
  await peers.write(peer, KNOWN, bytes)
  const described = await peers.describe(peer)
  const prober = processOf(described, 'prober0')
  const here = (await peers.translate(peer, 'prober0', prober.labels.here ?? 0n)) ?? 0
  const known: Guest = {
    vm: name,
    options: { socket, wait: 500 },
    sessions: 'one',
    vcpuCount: 2,
    memory: {
      known: [{ address: KNOWN + 100, bytes: bytes.subarray(100, bytes.length - 50) }],
      end: HIGH_START + HIGH,
      hole: HOLE,
      scratch: { address: SCRATCH, length: 4 * PAGE },
    },
    registers: {
      absent: ['tsc', 'xcr0', 'fmask', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'],
      async known(vcpu) {
        const { architecture, xcr0, fmask, tsc, dr0, dr1, dr2, dr3, dr6, dr7, ...told } = (await peers.vcpu(peer, vcpu))
          .registers
        return Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined))
      },
    },
    progressOf: async (_, vcpu) => (await peers.vcpu(peer, vcpu)).clock,
    provoke: new Shown(peers, peer).provocations(generation, described, here),
    injection: {
      vcpu: 1,
      injection: { type: 'exception', vector: 3 },
      count: () => breakpointsOf(peers, peer, described),
    },
    ...(generation === 'A' ? { remap: (vm: AnyVm) => remapped(peers, peer, described, vm) } : {}),
    vanish: () => peers.stop(peer),
  }
  return { known, peer }
}

/** In a view, a process counts in another page than its own. */
async function remapped(peers: Peers, peer: number, described: Described, vm: AnyVm): Promise<void> {
  const { views } = vm
  const own = processOf(described, 'counter0').data[0] ?? 0
  const count = async () => Buffer.from(await peers.read(peer, SCRATCH, 8)).readBigUInt64LE(0)
  const before = await peers.read(peer, SCRATCH, 8)
  await peers.write(peer, SCRATCH, new Uint8Array(8))
  const view = views.create()
  views.remap(view, own / PAGE, SCRATCH / PAGE)
  await peers.run(peer, 10_000)
  equal(await count(), 0n, 'what is counted in the other page while no vCPU is in the view')
  views.switch(view)
  await peers.run(peer, 10_000)
  if ((await count()) === 0n) throw new Error('the guest does not see the page of the view')
  views.destroy(view)
  await peers.write(peer, SCRATCH, before)
}

async function breakpointsOf(peers: Peers, peer: number, { processes }: Described): Promise<bigint> {
  const all = await Promise.all(processes.map(({ name }) => peers.process(peer, name)))
  return all.reduce((sum, { breakpoints }) => sum + breakpoints, 0n)
}
