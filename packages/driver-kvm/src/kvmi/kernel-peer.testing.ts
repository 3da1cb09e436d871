import type { BackendEvent, Injection, InterceptRequest, Reply } from '@microvmi/core/driver'
import type { Guest } from '@microvmi/mock'
import {
  newVcpu,
  type Raised,
  type Rights,
  raised,
  raisedBy,
  type VcpuState,
  wantsOf,
} from './kernel-events.testing.ts'
import { eventBody, memoryReply, registersReply, retryReply, versionReply } from './kernel-replies.testing.ts'
import { changesIn } from './kernel-structs.testing.ts'
import {
  COMMANDS_A,
  COMMANDS_C,
  EBUSY,
  EINVAL,
  ENOENT,
  ENOSYS,
  EOPNOTSUPP,
  EPERM,
  EVENTS_A,
  EVENTS_C,
  OF_VCPU,
} from './kernel-tables.testing.ts'
import type { MockBackend, PeerOptions } from './qemu-peer.testing.ts'

/** What a vCPU stands still for: events that are sent one after the other, then the mock goes on. */
interface Held {
  readonly mock: BackendEvent
  readonly left: Raised[]
  current: Raised
  seq: number
  /** What the mock is to do when all have their answers. */
  reply: Reply
  pending: Buffer | undefined
}

/**
 * Plays the kernel's side of one connection, with a mock guest behind it: takes commands, raises events, is as strict
 * as the kernel about padding and sizes. A peer of tests: it shares no code with the driver.
 */
export class KernelPeer {
  readonly #options: PeerOptions
  readonly #backend: MockBackend
  readonly #guest: Guest
  readonly #send: (bytes: Buffer) => void
  readonly #close: () => void
  readonly #isA: boolean
  readonly #vcpus: VcpuState[]
  readonly #held = new Map<number, Held>()
  /** Requests that are armed in the mock, by what they are. */
  readonly #armed = new Map<string, number>()
  readonly #rights = new Map<string, Rights>()
  #nextArmed = 1
  #nextSeq = 1000
  #unhookWanted = false
  #newVcpusWanted = false
  /** Commands get no answers: for batches, which libkvmi sends and the driver does not. */
  #quiet = false

  constructor(
    options: PeerOptions,
    backend: MockBackend,
    guest: Guest,
    wire: { readonly send: (bytes: Buffer) => void; readonly close: () => void },
  ) {
    this.#options = options
    this.#backend = backend
    this.#guest = guest
    this.#send = wire.send
    this.#close = wire.close
    this.#isA = options.generation === 'A'
    this.#vcpus = Array.from({ length: backend.vcpuCount }, () => newVcpu())
    backend.events.listen({ deliver: (event) => this.#raise(event), fail: () => this.#close() })
  }

  /** Whole messages. */
  message(bytes: Buffer): void {
    const [id, size, seq] = [bytes.readUInt16LE(0), bytes.readUInt16LE(2), bytes.readUInt32LE(4)]
    const body = bytes.subarray(8, 8 + size)
    const isAnswer = id === (this.#isA ? 0 : 1)
    const name = (this.#isA ? COMMANDS_A : COMMANDS_C)[id]
    if (isAnswer) this.#answered(body, seq)
    else if (name === undefined) this.#reply(id, seq, ENOSYS)
    else if (this.#options.deniedCommands?.includes(id)) this.#reply(id, seq, EPERM)
    else this.#do(name, id, seq, body)
  }

  #do(name: string, id: number, seq: number, body: Buffer): void {
    const result = this.#command(name, body)
    if (typeof result === 'number') this.#reply(id, seq, result)
    else this.#reply(id, seq, 0, result)
    if (name === 'pause') this.#sync()
  }

  /** QEMU is about to migrate, or the like. */
  unhook(): boolean {
    if (!this.#unhookWanted) return false
    const body = this.#isA ? this.#body(0, 'unhook') : Buffer.from([0, 0, 0, 0, 0, 0, 0, 0])
    this.#message(this.#isA ? 1 : 0, this.#nextSeq++, body)
    return true
  }

  /** A vCPU was plugged in. */
  addVcpu(): void {
    this.#vcpus.push({ ...newVcpu(), created: this.#newVcpusWanted })
    this.#sync()
  }

  /** The connection has ended: as if it had never been. */
  release(): void {
    for (const number of this.#armed.values()) this.#backend.events.disarm(number)
    this.#backend.release()
  }

  #command(name: string, body: Buffer): number | Buffer {
    if (!OF_VCPU.has(name)) return this.#ofVm(name, body)
    const vcpu = body.readUInt16LE(0)
    const state = this.#vcpus[vcpu]
    if (body.readUInt16LE(2) !== 0 || body.readUInt32LE(4) !== 0 || !state) return EINVAL
    return this.#ofVcpu(name, body.subarray(8), vcpu, state)
  }

  #ofVm(name: string, body: Buffer): number | Buffer {
    switch (name) {
      case 'version':
        return versionReply(this.#isA)
      case 'checkCommand': {
        const id = body.readUInt16LE(0)
        if (!(id in (this.#isA ? COMMANDS_A : COMMANDS_C))) return ENOENT
        return this.#options.deniedCommands?.includes(id) ? EPERM : 0
      }
      case 'checkEvent': {
        const id = body.readUInt16LE(0)
        if (!Object.values(this.#events).includes(id)) return ENOENT
        return this.#options.deniedEvents?.includes(id) ? EPERM : 0
      }
      case 'info': {
        const info = Buffer.alloc(16)
        info.writeUInt32LE(this.#vcpus.length, 0)
        return info
      }
      case 'vmEvents':
        if (body.readUInt16LE(0) === 0) this.#unhookWanted = body[2] === 1
        else if (this.#isA && body.readUInt16LE(0) === EVENTS_A.createVcpu) this.#newVcpusWanted = body[2] === 1
        else return EINVAL
        return 0
      case 'maxGfn': {
        const last = this.#guest.ranges.at(-1)
        const gfn = Buffer.alloc(8)
        gfn.writeBigUInt64LE(BigInt(((last?.start ?? 0) + (last?.length ?? 0)) / 4096), 0)
        return gfn
      }
      case 'commandResponse':
        // u8 enable, u8 now: before this one's own answer, or behind it.
        this.#quiet = body[0] === 0
        return body[1] === 1 ? 0 : ENOSYS
      case 'pause':
        return this.#pause(body)
      case 'read':
      case 'write':
        return memoryReply(this.#backend, this.#isA, name, body)
      case 'pageAccess':
        return this.#pageAccess(body)
      case 'createView': {
        const view = Buffer.alloc(8)
        view.writeUInt16LE(this.#backend.views.create(), 0)
        return view
      }
      case 'destroyView':
        return this.#try(() => this.#backend.views.destroy(body.readUInt16LE(0)))
      default:
        return ENOSYS
    }
  }

  #pause(body: Buffer): number {
    const [vcpu, wait] = this.#isA ? [body.readUInt16LE(0), body[8]] : [body.readUInt16LE(0), body[2]]
    const padding = this.#isA ? [...body.subarray(2, 8), ...body.subarray(9, 16)] : [...body.subarray(3, 8)]
    const state = this.#vcpus[vcpu]
    if (!state || (wait ?? 0) > 1 || padding.some((byte) => byte !== 0)) return EINVAL
    // MAX_PAUSE_REQUESTS
    if (state.pauses > 1001) return EBUSY
    state.pauses += 1
    return 0
  }

  #pageAccess(body: Buffer): number {
    const [view, count] = this.#isA ? [body.readUInt16LE(0), body.readUInt16LE(2)] : [0, body.readUInt16LE(0)]
    if (body.length < 8 + 16 * count || body.readUInt32LE(4) !== 0) return EINVAL
    let failure = 0
    for (let index = 0; index < count; index++) {
      const entry = body.subarray(8 + 16 * index)
      const address = Number(entry.readBigUInt64LE(0))
      const rights = entry[8] ?? 0
      // EPT: no write without read.
      if (rights > 7 || (rights & 3) === 2) failure ||= EINVAL
      else failure ||= this.#try(() => this.#setRights(view, address / 4096, rights))
    }
    this.#sync()
    return failure
  }

  #setRights(view: number, frame: number, rights: number): void {
    const access = (['none', 'r', 'w', 'rw', 'x', 'rx', 'wx', 'rwx'] as const)[rights] ?? 'none'
    this.#backend.memory.setAccess(frame * 4096, 4096, access, view)
    const key = `${view}:${frame}`
    if (rights === 7) this.#rights.delete(key)
    else this.#rights.set(key, { view, frame, rights })
  }

  #ofVcpu(name: string, body: Buffer, vcpu: number, state: VcpuState): number | Buffer {
    switch (name) {
      case 'events': {
        const event = this.#eventName(body.readUInt16LE(0))
        if (event === undefined || (body[2] ?? 0) > 1) return EINVAL
        if (this.#options.deniedEvents?.includes(body.readUInt16LE(0))) return EPERM
        set(state.events, event, body[2] === 1)
        break
      }
      case 'cr': {
        const [register, enable] = this.#isA ? [body.readUInt32LE(4), body[0]] : [body[0] ?? 0, body[1]]
        if (![0, 3, 4].includes(register) || (enable ?? 0) > 1) return EINVAL
        set(state.crs, register, enable === 1)
        break
      }
      case 'msr':
        if (body.readUInt16LE(2) !== 0 || (body[0] ?? 0) > 1) return EINVAL
        set(state.msrs, body.readUInt32LE(4), body[0] === 1)
        break
      case 'singlestep':
        state.stepping = body[0] === 1
        break
      case 'getRegisters':
        return registersReply(this.#backend, body, vcpu)
      case 'setRegisters': {
        const held = this.#held.get(vcpu)
        if (!held) return EOPNOTSUPP
        held.pending = Buffer.from(body.subarray(0, 144))
        return body.length === 144 ? 0 : EINVAL
      }
      case 'inject':
        return this.#inject(body, vcpu, state)
      case 'switchView':
        return this.#try(() => this.#backend.views.switch(body.readUInt16LE(0), vcpu))
      case 'changeGfn': {
        const [view, gfn, to] = [
          body.readUInt16LE(0),
          Number(body.readBigUInt64LE(8)),
          Number(body.readBigUInt64LE(16)),
        ]
        return this.#try(() => this.#backend.views.remap(view, gfn, to === gfn ? undefined : to))
      }
      default:
        return ENOSYS
    }
    this.#sync()
    return 0
  }

  #inject(body: Buffer, vcpu: number, state: VcpuState): number {
    if (state.trap !== undefined) return EBUSY
    const [vector, errorCode, cr2] = [body[0] ?? 0, body.readUInt32LE(4), body.readBigUInt64LE(8)]
    const hasError = [8, 10, 11, 12, 13, 14, 17].includes(vector)
    const more = { ...(hasError ? { errorCode } : {}), ...(vector === 14 ? { cr2 } : {}) }
    const injection: Injection = { type: 'exception', vector, ...more }
    if (this.#isA && !state.events.has('trap')) return this.#try(() => this.#backend.inject(vcpu, injection))
    state.trap = { vector, injection }
    this.#sync()
    return 0
  }

  /** Arms in the mock what some vCPU wants, and what a vCPU waits in still. */
  #sync(): void {
    const wanted = new Map<string, InterceptRequest>()
    for (const [vcpu, state] of this.#vcpus.entries()) wantsOf(vcpu, state, this.#rights, wanted)
    const waiting = new Set([...this.#held.values()].flatMap(({ mock }) => mock.armed))
    for (const [key, number] of [...this.#armed]) {
      if (wanted.has(key) || waiting.has(number)) continue
      this.#armed.delete(key)
      this.#backend.events.disarm(number)
    }
    for (const [key, request] of wanted) {
      if (this.#armed.has(key)) continue
      const number = this.#nextArmed++
      this.#armed.set(key, number)
      this.#backend.events.arm(request, number)
    }
  }

  /** The mock guest did something: what of it is told on the wire? */
  #raise(event: BackendEvent): void {
    const state = this.#vcpus[event.vcpu]
    const raised = state ? raisedBy(event, state, this.#isA, (address) => this.#translate(event.vcpu, address)) : []
    const [first, ...left] = raised
    if (!first) {
      if (event.stops !== 'none') this.#backend.events.reply(event, {})
      return
    }
    const held: Held = { mock: event, left, current: first, seq: 0, reply: {}, pending: undefined }
    this.#held.set(event.vcpu, held)
    this.#tell(event.vcpu, held)
  }

  #tell(vcpu: number, held: Held): void {
    const { name, specific } = held.current
    const state = this.#vcpus[vcpu]
    if (name === 'pause' && state) state.pauses -= 1
    if (name === 'createVcpu' && state) state.created = false
    held.seq = this.#nextSeq++
    this.#message(1, held.seq, Buffer.concat([this.#body(vcpu, name), specific]))
  }

  #body(vcpu: number, name: string): Buffer {
    const { view } = this.#guest.vcpu(vcpu)
    return eventBody(this.#backend.registers.read(vcpu), vcpu, this.#events[name] ?? 0, this.#isA ? view : undefined)
  }

  /** An event has its answer. What the kernel cannot read ends the connection. */
  #answered(body: Buffer, seq: number): void {
    const [vcpu, action, event] = [body.readUInt16LE(0), body[8] ?? 0, body[9]]
    const held = this.#held.get(vcpu)
    if (!held || held.seq !== seq || event !== this.#events[held.current.name]) {
      this.#close()
      return
    }
    const own = { cr: 8, msr: 8, pf: this.#isA ? 272 : 0 }[held.current.name] ?? 0
    if (body.length !== 16 + own) {
      this.#close()
      return
    }
    held.reply = { ...held.reply, ...this.#replyTo(held, action, body.subarray(16), vcpu) }
    const state = this.#vcpus[vcpu]
    const { pending } = held
    const changes = pending ? changesIn(pending, this.#backend.registers.read(vcpu)) : {}
    // What was asked for meanwhile comes before the vCPU goes on.
    const isPausing = held.mock.kind === 'singlestep' && (state?.pauses ?? 0) > 0
    const next = held.left.shift() ?? (isPausing ? raised('pause', []) : undefined)
    if (next) {
      this.#backend.registers.write(vcpu, changes)
      held.pending = undefined
      held.current = next
      this.#tell(vcpu, held)
      return
    }
    this.#held.delete(vcpu)
    const registers = Object.keys(changes).length > 0 ? { registers: changes } : {}
    this.#backend.events.reply(held.mock, { ...held.reply, ...registers })
    this.#sync()
  }

  #replyTo(held: Held, action: number, own: Buffer, vcpu: number): Reply {
    const { name, specific } = held.current
    if (name === 'cr' || name === 'msr') return { value: own.readBigUInt64LE(0) }
    if (name === 'breakpoint' && action === 1)
      return retryReply(this.#backend, vcpu, specific, this.#held.get(vcpu)?.pending)
    const state = this.#vcpus[vcpu]
    if (name === 'trap' && state?.trap) {
      const { injection } = state.trap
      state.trap = undefined
      return { inject: injection }
    }
    if (name === 'pf' && this.#isA && action === 0) {
      const [address, size] = [own.readBigUInt64LE(0), own.readUInt32LE(8)]
      const gva = specific.readBigUInt64LE(0)
      if (size > 0 && gva >= address && gva < address + BigInt(size)) {
        return { emulate: { data: Buffer.from(own.subarray(16, 16 + size)) } }
      }
    }
    return {}
  }

  #translate(vcpu: number, address: bigint): number | undefined {
    const { cr3 } = this.#backend.registers.read(vcpu)
    const process = this.#guest.processes.find((one) => one.cr3 === cr3)
    return this.#guest.translate(process ?? this.#guest.kernel, address)
  }

  get #events(): Readonly<Record<string, number>> {
    return this.#isA ? EVENTS_A : EVENTS_C
  }

  #eventName(id: number): string | undefined {
    return Object.keys(this.#events).find((name) => this.#events[name] === id)
  }

  #reply(id: number, seq: number, error: number, data: Buffer = Buffer.alloc(0)): void {
    if (this.#quiet) return
    const code = Buffer.alloc(8)
    code.writeInt32LE(error, 0)
    this.#message(id, seq, Buffer.concat([code, data]))
  }

  #message(id: number, seq: number, body: Buffer): void {
    const header = Buffer.alloc(8)
    header.writeUInt16LE(id, 0)
    header.writeUInt16LE(body.length, 2)
    header.writeUInt32LE(seq, 4)
    this.#send(Buffer.concat([header, body]))
  }

  #try(work: () => void): number {
    try {
      work()
      return 0
    } catch {
      return EINVAL
    }
  }
}

function set<T>(values: Set<T>, value: T, on: boolean): void {
  if (on) values.add(value)
  else values.delete(value)
}
