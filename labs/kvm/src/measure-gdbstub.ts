// Prints how QEMU's gdbstub behaves: what NOTES.md is written from. On KVM, and under software emulation:
//   node --import tsx labs/kvm/src/main.ts run -- node labs/kvm/src/measure-gdbstub.ts [TOPIC]
//   node --import tsx labs/kvm/src/measure-gdbstub.ts [TOPIC]
import { closeSync, openSync, readSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { type GuestFacts, monitor, type QemuLab, startQemu } from '@microvmi/lab-qemu'
import { CR3, GdbClient, RIP, registerIn } from './gdb-client.ts'

const hex = (value: bigint | number) => value.toString(16)
const say = (topic: string, ...what: unknown[]) => console.log(`${topic.padEnd(26)} ${what.join(' ')}`)

/** Numbers of gdb-xml/i386-64bit.xml. */
const NUMBERS: Record<string, [number, string]> = {
  rax: [0, '1122334455667788'],
  eflags: [17, ''],
  cs: [18, ''],
  ss: [19, ''],
  ds: [20, ''],
  fs_base: [24, '0010000000000000'],
  gs_base: [25, ''],
  k_gs_base: [26, '0020000000000000'],
  cr0: [27, ''],
  cr2: [28, '3412000000000000'],
  cr3: [29, ''],
  cr4: [30, ''],
  cr8: [31, '0500000000000000'],
  efer: [32, ''],
  fctrl: [41, '7f030000'],
  mxcsr: [65, '801f0000'],
}

let open: GdbClient | undefined

const only = process.argv[2]
const lab = await startQemu({ memoryMiB: 128, vcpus: 2, gdb: true })
try {
  const facts = await lab.ready()
  const topics = { connecting, hardware, watch, software, stepping, hits, registers, leaving, twoVcpus }
  for (const [name, measure] of Object.entries(topics)) {
    if (only !== undefined && only !== name) continue
    console.log(`\n--- ${name}`)
    try {
      await measure(lab, facts)
    } catch (error) {
      say('FAILED', String(error))
    }
    await recover(lab)
  }
} finally {
  await lab.stop()
}

async function status(): Promise<string> {
  return ((await monitor(lab.ownQmp, 'query-status')) as { status: string }).status
}

/** A session of its own: its first packet is drained, every breakpoint of before removed. */
async function session(): Promise<GdbClient> {
  const gdb = await GdbClient.connect(lab.gdb ?? '')
  await gdb.next(300)
  await gdb.ask('qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+')
  open = gdb
  return gdb
}

async function recover(guest: QemuLab): Promise<void> {
  // A second client would hang in silence.
  open?.close()
  await setTimeout(200)
  const gdb = await session()
  for (const vcpu of [1, 2]) {
    await gdb.ask(`Hcp1.${vcpu}`)
    await gdb.ask('?')
  }
  say('recovered', await gdb.ask('D;1'), await status())
  gdb.close()
  await monitor(guest.ownQmp, 'cont')
}

async function connecting(): Promise<void> {
  const first = await GdbClient.connect(lab.gdb ?? '')
  say('first packet', await first.next(500), await status())
  say('qSupported', await first.ask('qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+'))
  for (const query of ['vCont?', 'qC', 'qfThreadInfo', 'qqemu.sstepbits', 'qqemu.sstep', '?']) {
    say(query, await first.ask(query))
  }
  say('D', await first.ask('D'), await status())
  say('D;1', await first.ask('D;1'), await status())
  first.close()
  const second = await GdbClient.connect(lab.gdb ?? '')
  say('second: first packet', await second.next(500))
  second.close()
  await setTimeout(100)
  say('closed without D', await status())
  await monitor(lab.ownQmp, 'cont')
}

async function hardware(_: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const gdb = await session()
  const base = symbols._text ?? 0n
  const replies: unknown[] = []
  for (let index = 0; index < 6; index++) replies.push(await gdb.ask(`Z1,${hex(base + BigInt(index * 64))},1`))
  say('Z1 x 6', ...replies)
  say('Z2 beside four Z1', await gdb.ask(`Z2,${hex(base)},8`))
  say('Z1 twice the same', await gdb.ask(`z1,${hex(base)},1`), await gdb.ask(`Z1,${hex(base + 64n)},1`))
  say('Z1 of length 4', await gdb.ask(`z1,${hex(base + 64n)},1`), await gdb.ask(`Z1,${hex(base)},4`))
  for (let index = 0; index < 6; index++) await gdb.ask(`z1,${hex(base + BigInt(index * 64))},1`)
  say('z1 that is not there', await gdb.ask(`z1,${hex(base)},1`))
  say('Z1 landmark', await gdb.ask(`Z1,${hex(marks.landmark)},1`))
  for (let hit = 0; hit < 3; hit++) {
    const stop = await gdb.ask('vCont;c')
    const rip = registerIn((await gdb.ask('g')) ?? '', RIP)
    say('hit', stop, `rip - landmark = ${rip - marks.landmark}`, await status())
  }
  gdb.close()
}

async function watch(_: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const gdb = await session()
  // Data that the kernel writes all the time is not known here: only what is accepted is told, and a user's counter.
  const data = symbols.init_task ?? 0n
  for (const length of [1, 2, 3, 4, 8, 16]) {
    const replies: unknown[] = []
    for (const kind of [2, 3, 4]) {
      replies.push(`Z${kind}: ${(await gdb.ask(`Z${kind},${hex(data)},${hex(length)}`)) || '(empty)'}`)
      await gdb.ask(`z${kind},${hex(data)},${hex(length)}`)
    }
    say(`length ${length}`, ...replies)
  }
  say('Z2 of 4, at +2', await gdb.ask(`Z2,${hex(data + 2n)},4`))
  say('landmark', await gdb.ask(`Z1,${hex(marks.landmark)},1`), await gdb.ask('vCont;c'))
  // landmark() is called: its caller's return address lies at rsp and is written by every call.
  const all = (await gdb.ask('g')) ?? ''
  const stack = registerIn(all, 56)
  await gdb.ask(`z1,${hex(marks.landmark)},1`)
  for (const kind of [2, 4]) {
    say(`Z${kind} at rsp`, await gdb.ask(`Z${kind},${hex(stack)},8`))
    for (let hit = 0; hit < 2; hit++) {
      const stop = await gdb.ask('vCont;c', 3000)
      const rip = registerIn((await gdb.ask('g')) ?? '', RIP)
      say('hit', stop, `rip ${hex(rip)} (landmark ${hex(marks.landmark)})`, await status())
    }
    await gdb.ask(`z${kind},${hex(stack)},8`)
  }
  gdb.close()
}

async function software(guest: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const gdb = await session()
  const entry = symbols.entry_SYSCALL_64 ?? 0n
  const physical = await physicalOf(entry)
  say('entry_SYSCALL_64', hex(entry), 'at', hex(physical), 'byte', byteAt(guest, physical))
  say(
    'Z0',
    await gdb.ask(`Z0,${hex(entry)},1`),
    'in RAM:',
    byteAt(guest, physical),
    'by m:',
    await gdb.ask(`m${hex(entry)},1`),
  )
  say('Z0 again', await gdb.ask(`Z0,${hex(entry)},1`))
  for (let hit = 0; hit < 3; hit++) {
    const stop = await gdb.ask('vCont;c')
    const rip = registerIn((await gdb.ask('g')) ?? '', RIP)
    say('hit', stop, `rip - entry = ${rip - entry}`, await status())
  }
  say('z0', await gdb.ask(`z0,${hex(entry)},1`), 'in RAM:', byteAt(guest, physical))
  say('z0 the second time', await gdb.ask(`z0,${hex(entry)},1`), 'in RAM:', byteAt(guest, physical))
  say('Z0 unmapped', await gdb.ask('Z0,ffffc00000001000,1'))
  const before = countsOf(guest, marks)
  const text = symbols._text ?? 0n
  const many: unknown[] = []
  for (let index = 0; index < 20; index++) many.push(await gdb.ask(`Z0,${hex(text + BigInt(index * 16))},1`))
  say('Z0 x 20', ...many)
  await runFor(gdb, 1500)
  const after = countsOf(guest, marks)
  say(
    "the guest's own int3",
    `executed ${after.breakpoints - before.breakpoints}, signals ${after.traps - before.traps}`,
  )
  for (let index = 0; index < 20; index++) await gdb.ask(`z0,${hex(text + BigInt(index * 16))},1`)
  // A user address: armed where the process runs, removed where another does.
  say(
    'landmark by Z1',
    await gdb.ask(`Z1,${hex(marks.landmark)},1`),
    await gdb.ask('vCont;c'),
    await gdb.ask(`z1,${hex(marks.landmark)},1`),
  )
  const all = (await gdb.ask('g')) ?? ''
  say('Z0 at a user address', await gdb.ask(`Z0,${hex(marks.landmark)},1`), `cr3 ${hex(registerIn(all, CR3))}`)
  say('hit', await gdb.ask('vCont;c'))
  say('z0 under its CR3', await gdb.ask(`z0,${hex(marks.landmark)},1`))
  gdb.close()
}

async function stepping(guest: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const gdb = await session()
  for (const kind of [0, 1]) {
    for (const address of [marks.landmark]) {
      await gdb.ask(`Z1,${hex(address)},1`)
      const stop = (await gdb.ask('vCont;c')) ?? ''
      const thread = /thread:(p[0-9a-f]+\.[0-9a-f]+)/.exec(stop)?.[1] ?? ''
      if (kind === 0) {
        await gdb.ask(`z1,${hex(address)},1`)
        await gdb.ask(`Z0,${hex(address)},1`)
      }
      const rips: string[] = []
      for (let step = 0; step < 4; step++) {
        const reply = await gdb.ask(`vCont;s:${thread}`)
        rips.push(`${reply} +${registerIn((await gdb.ask('g')) ?? '', RIP) - address}`)
      }
      say(`step on an armed Z${kind}`, rips.join('; '))
      await gdb.ask(`z${kind},${hex(address)},1`)
      const moved: string[] = []
      for (let step = 0; step < 3; step++) {
        const reply = await gdb.ask(`vCont;s:${thread}`)
        moved.push(`${reply} +${registerIn((await gdb.ask('g')) ?? '', RIP) - address}`)
      }
      say(`then removed`, moved.join('; '))
    }
  }
  for (const mode of ['7', '3', '1']) {
    const set = await gdb.ask(`Qqemu.sstep=${mode}`)
    if (set !== 'OK') say(`sstep ${mode}`, set)
    for (const [place, start] of [
      ['kernel', symbols.entry_SYSCALL_64 ?? 0n],
      ['user', marks.landmark],
    ] as const) {
      if (set !== 'OK') continue
      await gdb.ask(`Z1,${hex(start)},1`)
      const thread = threadOf(await gdb.ask('vCont;c'))
      await gdb.ask(`z1,${hex(start)},1`)
      say(`sstep ${mode}, ${place}`, await manySteps(gdb, thread, start))
    }
  }
  await gdb.ask('Qqemu.sstep=3')
  // An `s` without a thread, and an instruction that is waited in.
  say('marks', JSON.stringify(countsOf(guest, marks)))
  gdb.close()
}

/** Steps until the place is left for the other of kernel and user, or 300 times, or until a step does not end. */
async function manySteps(gdb: GdbClient, thread: string, start: bigint): Promise<string> {
  const isKernel = (address: bigint) => address >= 2n ** 63n
  const times: number[] = []
  let unmoved = 0
  let last = start
  while (times.length < 300) {
    const opcode = await gdb.ask(`m${hex(last)},3`)
    const began = performance.now()
    const reply = await gdb.ask(`vCont;s:${thread}`, 2000)
    times.push(performance.now() - began)
    if (reply === undefined) {
      gdb.interrupt()
      const stop = await gdb.next()
      const rip = registerIn((await gdb.ask('g')) ?? '', RIP)
      return `step ${times.length} at ${hex(last)} (${opcode}) did not end in 2 s; interrupt: ${stop}, rip ${hex(rip)}`
    }
    const rip = registerIn((await gdb.ask('g')) ?? '', RIP)
    if (isKernel(rip) !== isKernel(start)) return `step ${times.length} at ${hex(last)} (${opcode}) led to ${hex(rip)}`
    if (rip === last) unmoved++
    last = rip
  }
  times.sort((a, b) => a - b)
  return `300 steps, all in place, unmoved ${unmoved}, median ${times[150]?.toFixed(1)} ms`
}

function threadOf(stop: string | undefined): string {
  return /thread:(p[0-9a-f]+\.[0-9a-f]+)/.exec(stop ?? '')?.[1] ?? ''
}

async function hits(guest: QemuLab, { marks, symbols }: GuestFacts): Promise<void> {
  const gdb = await session()
  for (const kind of [1, 0]) {
    const address = kind === 1 ? marks.landmark : (symbols.entry_SYSCALL_64 ?? 0n)
    await gdb.ask(`Z${kind},${hex(address)},1`)
    const before = countsOf(guest, marks).landmarks
    const times: number[] = []
    let stop = (await gdb.ask('vCont;c')) ?? ''
    let strange = 0
    for (let hit = 0; hit < 100; hit++) {
      const began = performance.now()
      const thread = /thread:(p[0-9a-f]+\.[0-9a-f]+)/.exec(stop)?.[1] ?? ''
      if (registerIn((await gdb.ask('g')) ?? '', RIP) !== address) strange++
      await gdb.ask(`z${kind},${hex(address)},1`)
      await gdb.ask(`vCont;s:${thread}`)
      await gdb.ask(`Z${kind},${hex(address)},1`)
      times.push(performance.now() - began)
      stop = (await gdb.ask('vCont;c')) ?? ''
    }
    times.sort((a, b) => a - b)
    const counted = countsOf(guest, marks).landmarks - before
    say(
      `Z${kind}, remove-step-insert`,
      `100 hits, ${strange} elsewhere; landmarks counted ${counted}; step-over median ${times[50]?.toFixed(1)} ms`,
    )
    await gdb.ask(`z${kind},${hex(address)},1`)
  }
  // Going on from a hit without a step.
  await gdb.ask(`Z1,${hex(marks.landmark)},1`)
  await gdb.ask('vCont;c')
  const before = countsOf(guest, marks).landmarks
  for (let hit = 0; hit < 20; hit++) await gdb.ask('vCont;c')
  say('plain vCont;c from Z1', `20 stops, landmarks counted ${countsOf(guest, marks).landmarks - before}`)
  await gdb.ask(`z1,${hex(marks.landmark)},1`)
  await gdb.ask(`Z1,${hex(marks.landmark)},1`)
  await gdb.ask('vCont;c')
  await gdb.ask(`z1,${hex(marks.landmark)},1`)
  await gdb.ask(`Z0,${hex(marks.landmark)},1`)
  const atFirst = countsOf(guest, marks).landmarks
  const rips = new Set<bigint>()
  for (let hit = 0; hit < 20; hit++) {
    await gdb.ask('vCont;c')
    rips.add(registerIn((await gdb.ask('g')) ?? '', RIP) - marks.landmark)
  }
  say(
    'plain vCont;c from Z0',
    `20 stops, at landmark + ${[...rips].join(', ')}, landmarks counted ${countsOf(guest, marks).landmarks - atFirst}`,
  )
  say('z0 landmark', await gdb.ask(`z0,${hex(marks.landmark)},1`))
  gdb.send('vCont;c')
  const waits: number[] = []
  for (let index = 0; index < 20; index++) {
    await setTimeout(20)
    const began = performance.now()
    gdb.interrupt()
    const stop = await gdb.next()
    waits.push(performance.now() - began)
    if (index === 0) say('interrupt', stop, await status())
    gdb.send('vCont;c')
  }
  waits.sort((a, b) => a - b)
  say('interrupt takes', `median ${waits[10]?.toFixed(1)} ms, worst ${waits[19]?.toFixed(1)} ms`)
  gdb.interrupt()
  await gdb.next()
  gdb.close()
}

async function registers(): Promise<void> {
  const gdb = await session()
  say('p0 before the description', JSON.stringify(await gdb.ask('p0')))
  await gdb.ask('qXfer:features:read:target.xml:0,ffb')
  for (const [name, [number, wanted]] of Object.entries(NUMBERS)) {
    const was = (await gdb.ask(`p${hex(number)}`)) ?? ''
    const value = wanted === '' ? was : wanted
    const written = await gdb.ask(`P${hex(number)}=${value}`)
    const now = (await gdb.ask(`p${hex(number)}`)) ?? ''
    const restored = await gdb.ask(`P${hex(number)}=${was}`)
    say(
      name,
      `was ${was}, wrote ${value}: ${written}, reads ${now} ${now === value ? '' : '<- DIFFERS'} restored ${restored}`,
    )
  }
  say(
    'cr8 by QMP',
    String(await monitor(lab.ownQmp, 'human-monitor-command', { 'command-line': 'info registers' }))
      .match(/CR[0-9]=\S+/g)
      ?.join(' '),
  )
  gdb.close()
}

async function leaving(guest: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const entry = symbols.entry_SYSCALL_64 ?? 0n
  const physical = await physicalOf(entry)
  const first = await session()
  await first.ask(`Z0,${hex(entry)},1`)
  first.close()
  await setTimeout(100)
  say('closed with Z0', 'in RAM:', byteAt(guest, physical), await status())
  await monitor(guest.ownQmp, 'cont')
  await setTimeout(300)
  say('after cont', await status())
  const second = await session()
  say('z0 in a new session', await second.ask(`z0,${hex(entry)},1`), 'in RAM:', byteAt(guest, physical))
  await second.ask(`Z0,${hex(entry)},1`)
  await second.ask(`Z1,${hex(marks.landmark)},1`)
  say('Hcp1.1, ?', await second.ask('Hcp1.1'), await second.ask('?'), 'in RAM:', byteAt(guest, physical))
  await second.ask('Hcp1.2')
  say('Hcp1.2, ?', await second.ask('?'), 'in RAM:', byteAt(guest, physical))
  await second.ask(`Z0,${hex(entry)},1`)
  say('D;1', await second.ask('D;1'), 'in RAM:', byteAt(guest, physical), await status())
  second.close()
  const third = await session()
  await third.ask(`Z0,${hex(entry)},1`)
  third.close()
  say(
    'gdbserver none',
    JSON.stringify(await monitor(guest.ownQmp, 'human-monitor-command', { 'command-line': 'gdbserver none' })),
    'in RAM:',
    byteAt(guest, physical),
    await status(),
  )
  await monitor(guest.ownQmp, 'human-monitor-command', {
    'command-line': `gdbserver unix:${guest.gdb},server=on,wait=off`,
  })
  const fourth = await session()
  say('z0 after a new gdbserver', await fourth.ask(`z0,${hex(entry)},1`), 'in RAM:', byteAt(guest, physical))
  // A breakpoint at a user address, removed while another process runs.
  await fourth.ask(`Z1,${hex(marks.landmark)},1`)
  const stop = (await fourth.ask('vCont;c')) ?? ''
  await fourth.ask(`z1,${hex(marks.landmark)},1`)
  const page = await physicalOf(marks.landmark, Number.parseInt(/\.0*([0-9a-f]+);/.exec(stop)?.[1] ?? '1', 16) - 1)
  const original = byteAt(guest, page)
  await fourth.ask(`Z0,${hex(marks.landmark)},1`)
  say('Z0 at a user address', 'in RAM:', byteAt(guest, page))
  const home = registerIn((await fourth.ask('g')) ?? '', CR3)
  let here = home
  // Bit 12 tells the user's half of a process's tables from the kernel's, where these are apart.
  for (let stops = 0; here >> 13n === home >> 13n && stops < 500; stops++) {
    await fourth.ask(`Z1,${hex(entry)},1`)
    const thread = threadOf(await fourth.ask('vCont;c'))
    here = registerIn((await fourth.ask('g')) ?? '', CR3)
    await fourth.ask(`z1,${hex(entry)},1`)
    await fourth.ask(`vCont;s:${thread}`, 1000)
  }
  say(
    'in another process',
    `cr3 ${hex(home)}, now ${hex(here)}; z0:`,
    await fourth.ask(`z0,${hex(marks.landmark)},1`),
    'in RAM:',
    byteAt(guest, page),
  )
  say('D;1', await fourth.ask('D;1'), 'in RAM:', byteAt(guest, page), `(original ${original})`)
  const traps = countsOf(guest, marks)
  await setTimeout(1500)
  const later = countsOf(guest, marks)
  say(
    '1.5 s later',
    `landmarks ${later.landmarks - traps.landmarks}, int3 ${later.breakpoints - traps.breakpoints}, signals ${later.traps - traps.traps}`,
  )
  fourth.close()
}

async function twoVcpus(guest: QemuLab, { symbols, marks }: GuestFacts): Promise<void> {
  const gdb = await session()
  const entry = symbols.entry_SYSCALL_64 ?? 0n
  say('both', JSON.stringify(await gdb.ask('qfThreadInfo')))
  // Frozen while another steps.
  await gdb.ask(`Z1,${hex(entry)},1`)
  const stop = (await gdb.ask('vCont;c')) ?? ''
  await gdb.ask(`z1,${hex(entry)},1`)
  const thread = Number.parseInt(/\.0*([0-9a-f]+);/.exec(stop)?.[1] ?? '1', 16)
  const other = 3 - thread
  const ripOf = async (vcpu: number) => {
    await gdb.ask(`Hgp1.${vcpu}`)
    return registerIn((await gdb.ask('g')) ?? '', RIP)
  }
  const before = await ripOf(other)
  const rounds = countsOf(guest, marks).rounds
  const stops = new Set<string | undefined>()
  for (let step = 0; step < 50; step++) stops.add(await gdb.ask(`vCont;s:p1.${thread}`))
  say(
    '50 steps of one',
    [...stops].join(' '),
    `the other moved: ${(await ripOf(other)) !== before}, rounds ${countsOf(guest, marks).rounds - rounds}`,
  )
  say('s;c', await gdb.ask(`vCont;s:p1.${thread};c`, 3000), await status())
  // Both at once: stops per vCPU, and two breakpoints at a time.
  for (const kind of [1, 0]) {
    await gdb.ask(`Z${kind},${hex(entry)},1`)
    const count = new Map<string, number>()
    let pending = 0
    let stopped = (await gdb.ask('vCont;c')) ?? ''
    for (let hit = 0; hit < 200; hit++) {
      const vcpu = Number.parseInt(/\.0*([0-9a-f]+);/.exec(stopped)?.[1] ?? '0', 16)
      count.set(stopped, (count.get(stopped) ?? 0) + 1)
      if ((await ripOf(3 - vcpu)) === entry) pending++
      await gdb.ask(`z${kind},${hex(entry)},1`)
      const stepped = await gdb.ask(`vCont;s:p1.${vcpu}`)
      if (stepped !== stopped) count.set(`step answered ${stepped}`, (count.get(`step answered ${stepped}`) ?? 0) + 1)
      await gdb.ask(`Z${kind},${hex(entry)},1`)
      stopped = (await gdb.ask('vCont;c')) ?? 'nothing'
    }
    await gdb.ask(`z${kind},${hex(entry)},1`)
    say(
      `Z${kind}, 200 hits`,
      [...count].map(([name, times]) => `${name} ${times}`).join(' | '),
      `the other on the spot too: ${pending}`,
    )
  }
  gdb.close()
}

async function runFor(gdb: GdbClient, milliseconds: number): Promise<void> {
  gdb.send('vCont;c')
  await setTimeout(milliseconds)
  gdb.interrupt()
  await gdb.next()
}

function countsOf(guest: QemuLab, { counters }: GuestFacts['marks']) {
  const bytes = ramAt(guest, counters, 32)
  const [landmarks = 0, breakpoints = 0, traps = 0, rounds = 0] = [0, 8, 16, 24].map((at) =>
    Number(bytes.readBigUInt64LE(at)),
  )
  return { landmarks, breakpoints, traps, rounds }
}

async function physicalOf(address: bigint, vcpu = 0): Promise<number> {
  const text = await monitor(lab.ownQmp, 'human-monitor-command', {
    'command-line': `gva2gpa 0x${hex(address)}`,
    'cpu-index': vcpu,
  })
  return Number(/gpa: (0x[0-9a-f]+)/.exec(String(text))?.[1])
}

function byteAt(guest: QemuLab, address: number): string {
  return ramAt(guest, address, 1).toString('hex')
}

function ramAt({ ramFile = '' }: QemuLab, address: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  const fd = openSync(ramFile, 'r')
  readSync(fd, bytes, 0, length, address)
  closeSync(fd)
  return bytes
}
