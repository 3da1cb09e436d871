import { createGuest, type GuestOptions, type Guest as MockGuest, mock } from '@microvmi/mock'
import type { AnyVm, Fixture, Guest, Provocations, TestedDriver } from './index.ts'
import { MockReplies } from './mock-replies.testing.ts'

const PAGE = 4096
/** Low RAM is used neither by the guest's kernel nor by its processes. */
const KNOWN = 0x1_0000
const SCRATCH = 0x4_0000
/** The window of video memory: from the end of low RAM to the ROM. */
const HOLE = { start: 0xa_0000, length: 0x5_0000 }
const HIGH_START = 2 ** 32
const MEMORY = 4 * 2 ** 20
const HIGH = 2 ** 20

const FS_BASE = 0xc000_0100
const STAR = 0xc000_0081
const DATA = 0x60_0000n
const CONSOLE_PORT = 0xe9

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

let made = 0

/** What a test wants to be otherwise. */
export interface MockFixtureOptions extends Omit<Partial<Fixture>, 'driver' | 'guest'> {
  readonly driver?: TestedDriver
  readonly guest?: GuestOptions
  /** Changes what is known of each guest. */
  readonly known?: (known: Guest) => Guest
}

/** A fixture whose every case has a mock guest of its own, which runs in real time. */
export function mockFixture(options: MockFixtureOptions = {}): Fixture {
  const { driver = mock, guest: asked, known = (same: Guest) => same, ...others } = options
  const guests = new Map<Guest, MockGuest>()
  return {
    driver,
    startup: 10_000,
    async guest() {
      made += 1
      const guest = createGuest({
        name: `conformance ${made}`,
        clock: 'real',
        speed: 400_000,
        timeSlice: 300,
        journalLength: 500,
        memory: MEMORY,
        highMemory: HIGH,
        processes: processesFor(asked?.vcpus ?? 2),
        ...asked,
      })
      // Until its kernel has set up every vCPU.
      await guest.run(1000)
      const description = known(describe(guest))
      guests.set(description, guest)
      return description
    },
    after(description) {
      guests.get(description)?.remove()
      guests.delete(description)
    },
    ...others,
  }
}

/** Of each sort one for each vCPU: they are dealt out in turn. */
function processesFor(vcpus: number): NonNullable<GuestOptions['processes']> {
  return (['caller', 'counter', 'prober'] as const).flatMap((name) =>
    Array.from({ length: vcpus }, (_, vcpu) => ({
      name: `${name}${vcpu}`,
      program: name === 'prober' ? { source: PROBER } : name,
    })),
  )
}

/** What is known of a guest from elsewhere than from the driver. */
function describe(guest: MockGuest): Guest {
  const bytes = Uint8Array.from({ length: 3 * PAGE }, (_, index) => (index * 7 + (index >> 8)) % 251)
  guest.write(KNOWN, bytes)
  const unused = guest.process('counter0').data[3] ?? 0
  const last = guest.vcpuCount - 1
  const replies = new MockReplies(guest)
  return {
    vm: guest.id,
    sessions: 'several',
    vcpuCount: guest.vcpuCount,
    memory: {
      known: [
        { address: KNOWN + 100, bytes: bytes.subarray(100, bytes.length - 50) },
        { address: unused, bytes: guest.read(unused, PAGE) },
      ],
      end: HIGH_START + HIGH,
      hole: HOLE,
      scratch: { address: SCRATCH, length: 4 * PAGE },
    },
    registers: {
      known: (vcpu) => {
        const { architecture, ...registers } = guest.vcpu(vcpu).registers
        return Object.fromEntries(Object.entries(registers).filter(([, value]) => value !== undefined))
      },
      writable: { cr2: 0x1234_5678n, lstar: 0xffff_ffff_8100_1234n },
    },
    msr: { index: 0xc000_0102, value: 0x7fff_1234_5678n },
    progressOf: (_, vcpu) => guest.vcpu(vcpu).clock,
    provoke: provocationsOf(guest, replies),
    injection: { vcpu: last, injection: { type: 'nmi' }, count: () => replies.counter(last, 0x18) },
    remap: (vm) => remapped(guest, vm),
    vanish: () => guest.vanish(),
  }
}

function provocationsOf(guest: MockGuest, replies: MockReplies): Provocations {
  const caller = guest.process('caller0')
  const prober = guest.process('prober0')
  const service = guest.kernel.labels.get('service_put') ?? 0n
  const ownBreakpoint = caller.labels.get('own_breakpoint') ?? 0n
  const here = prober.labels.get('here') ?? 0n
  const memory = { kind: 'memory', address: prober.data[0] ?? 0, length: 8, access: 'rw' } as const
  return {
    cr: [
      {
        request: { kind: 'cr', register: 'cr3' },
        never: [{ kind: 'cr', register: 'cr3', mask: 1n << 51n }],
        everyVcpu: true,
        check: (event) => {
          const known = guest.processes.some(({ cr3 }) => cr3 === event.new)
          if (!known) throw new Error(`no process has CR3 ${event.new}`)
        },
        replies: replies.cr,
      },
      { request: { kind: 'cr', register: 'cr0' } },
      { request: { kind: 'cr', register: 'cr4', mask: 4n } },
      { request: { kind: 'cr', register: 'xcr0' } },
    ],
    msr: {
      request: { kind: 'msr', msr: FS_BASE },
      never: [{ kind: 'msr', msr: STAR }],
      everyVcpu: true,
      replies: replies.msr,
    },
    breakpoint: [
      {
        request: { kind: 'breakpoint', address: here, addressSpace: prober.cr3, method: 'software' },
        physicalAddress: guest.translate(prober, here) ?? 0,
        // Other processes have other code there, of which this address is no part.
        never: [{ kind: 'breakpoint', address: ownBreakpoint, addressSpace: prober.cr3 }],
        replies: replies.breakpoint,
      },
      {
        request: { kind: 'breakpoint', address: service, method: 'hardware' },
        physicalAddress: guest.translate(guest.kernel, service) ?? 0,
        everyVcpu: true,
      },
    ],
    int3: { request: { kind: 'int3' }, everyVcpu: true, replies: replies.int3 },
    watchpoint: [
      {
        request: { kind: 'watchpoint', address: DATA, length: 8, access: 'w', addressSpace: prober.cr3 },
        never: [{ kind: 'watchpoint', address: DATA, length: 8, access: 'w', addressSpace: 0xdead_f000n }],
        replies: replies.watchpoint,
      },
      { request: { kind: 'watchpoint', address: DATA, length: 8, access: 'w' }, everyVcpu: true },
    ],
    memory: [
      {
        request: memory,
        never: [{ kind: 'memory', address: SCRATCH, length: PAGE, access: 'rwx' }],
        replies: replies.memory(memory),
      },
      {
        request: { kind: 'memory', address: guest.translate(guest.kernel, service) ?? 0, length: 1, access: 'x' },
        everyVcpu: true,
      },
    ],
    singlestep: {
      request: { kind: 'singlestep' },
      never: [{ kind: 'singlestep', onlyAsked: true }],
      everyVcpu: true,
      replies: replies.singlestep,
    },
    cpuid: {
      request: { kind: 'cpuid', leaf: 1 },
      never: [{ kind: 'cpuid', leaf: 0x4000_0000 }],
      everyVcpu: true,
      replies: replies.cpuid,
    },
    descriptor: { request: { kind: 'descriptor' }, everyVcpu: true, replies: replies.descriptor },
    debug: { request: { kind: 'debug' }, everyVcpu: true, replies: replies.debug },
    hypercall: {
      request: { kind: 'hypercall' },
      everyVcpu: true,
      check: (event) => {
        if (event.number !== 7n) throw new Error(`the guest calls 7, not ${event.number}`)
      },
      replies: replies.hypercall,
    },
    privcall: { request: { kind: 'privcall' }, everyVcpu: true, replies: replies.privcall },
    io: {
      request: { kind: 'io', port: CONSOLE_PORT },
      never: [{ kind: 'io', port: 0x80 }],
      everyVcpu: true,
      replies: replies.io,
    },
    interrupt: {
      request: { kind: 'interrupt', vector: 32 },
      never: [{ kind: 'interrupt', vector: 200 }],
      everyVcpu: true,
      replies: replies.interrupt,
    },
    lifecycle: { request: { kind: 'lifecycle' }, provoke: () => guest.announce('migrating') },
  }
}

/** In a view, a process counts in another page than its own. */
async function remapped(guest: MockGuest, vm: AnyVm): Promise<void> {
  const { views } = vm
  const [own = 0] = guest.process('counter0').data
  const count = () => new DataView(guest.read(SCRATCH, 8).buffer).getBigUint64(0, true)
  const view = views.create()
  views.remap(view, own / PAGE, SCRATCH / PAGE)
  await guest.run(10_000)
  if (count() !== 0n) throw new Error('the page is remapped in a view that no vCPU is in')
  views.switch(view)
  await guest.run(10_000)
  if (count() === 0n) throw new Error('the guest does not see the page of the view')
  views.remap(view, own / PAGE)
  await guest.run(10)
  const before = count()
  await guest.run(10_000)
  if (count() !== before) throw new Error('the guest does not see its own page again')
  views.destroy(view)
}
