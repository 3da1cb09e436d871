import { type Abi, abiOf } from './abi/versions.ts'
import { FAST_STEP, FLAG, MEMORY_ACCESS, REASON, SLOT } from './abi/vm-event.ts'
import { PeerMemory, PeerSignal } from './peer-memory.testing.ts'
import { PeerViews } from './peer-views.testing.ts'

const PAGE = 4096
/** DEFINE_RING_TYPES (io/ring.h). */
const RING = { requestsProduced: 0, responsesProduced: 8, slots: 64 } as const

/** ISR and IRR of a local APIC (Intel SDM volume 3A, table 11-1); between them is TMR. */
export const IN_SERVICE = 0x100
export const REQUESTED = 0x200

interface PeerVcpu {
  /** struct hvm_hw_cpu. */
  readonly context: Uint8Array
  /** It stands still until a request of its is answered. */
  isWaiting: boolean
  /** Registers of its local APIC (Intel SDM volume 3A, table 11-1). */
  readonly lapic: Uint8Array
  isDown: boolean
}

/** A domain of the peer's: memory, vCPUs, pauses, and a monitor as Xen 4.17 was seen to have it. */
export class PeerDomain {
  readonly domid: number
  readonly name: string
  /** Of a PV domain: bits of its addresses. */
  pv: 32 | 64 | undefined
  readonly memory = new PeerMemory(64 * PAGE)
  readonly vcpus: readonly PeerVcpu[]
  readonly views: PeerViews
  readonly channel = new PeerSignal()
  readonly responses: { readonly vcpu: number; readonly flags: number; readonly slot: Uint8Array }[] = []
  readonly injected: { readonly vcpu: number; readonly vector: number }[] = []
  /** What the monitor was told to report. */
  readonly armed = new Set<string>()
  /** How many pages it may have. */
  mostPages = this.memory.pages
  pauses = 0
  isMonitored = false
  isDestroyed = false
  /** What happens between saving the domain and loading it. */
  afterSave: () => void = () => {}
  /** An HVM guest proper. */
  hasDevices = false
  abi: Abi = abiOf({ major: 4, minor: 17, extra: '' })
  /** A page of its own: Xen hands over the same one each time, with the indices that were left in it. */
  readonly ring = new PeerMemory(PAGE)
  #answered = 0

  constructor(domid: number, name: string, vcpus = 2) {
    this.domid = domid
    this.name = name
    this.vcpus = Array.from({ length: vcpus }, (_, vcpu) => ({
      context: contextOf(vcpu),
      isWaiting: false,
      lapic: new Uint8Array(1024),
      isDown: false,
    }))
    this.views = new PeerViews(vcpus)
    const noise = new Uint32Array(PAGE / 4).fill(0x0bad_0bad)
    this.ring.write(0, new Uint8Array(noise.buffer))
  }

  /** A vCPU that runs: neither paused nor waiting for an answer. */
  runs(vcpu: number): boolean {
    return this.pauses === 0 && this.vcpus[vcpu]?.isWaiting === false && !this.vcpus[vcpu].isDown
  }

  /** One pause less; vCPUs that run then take the interrupts that are under way. */
  unpause(): void {
    this.pauses = Math.max(0, this.pauses - 1)
    for (const [number, { lapic }] of this.vcpus.entries()) if (this.runs(number)) lapic.fill(0, IN_SERVICE, REQUESTED)
  }

  /** An interrupt of a local APIC's: requested, or about to be taken. */
  interrupt(vcpu: number, vector: number, where: typeof IN_SERVICE | typeof REQUESTED): void {
    const lapic = this.vcpus[vcpu]?.lapic
    if (lapic) lapic[where + (vector >>> 5) * 16 + ((vector & 31) >>> 3)] = 1 << (vector & 7)
  }

  enable(): number {
    this.isMonitored = true
    this.#answered = 0
    return this.ring.map([0], new Int32Array(1))
  }

  /** Clears what is armed, and answers nobody. */
  disable(): void {
    this.isMonitored = false
    this.armed.clear()
  }

  /** Puts a request into the ring, as Xen does when a vCPU does what is armed. */
  request(vcpu: number, reason: number, more: (slot: DataView) => void = () => {}): void {
    const produced = this.#index(RING.requestsProduced)
    const slot = new DataView(new ArrayBuffer(this.abi.slotLength))
    slot.setUint32(SLOT.version, this.abi.vmEvent, true)
    slot.setUint32(SLOT.flags, FLAG.vcpuPaused, true)
    slot.setUint32(SLOT.reason, reason, true)
    slot.setUint32(SLOT.vcpu, vcpu, true)
    if (this.views.isOn) {
      slot.setUint32(SLOT.flags, FLAG.vcpuPaused | FLAG.view, true)
      slot.setUint16(SLOT.view, this.views.vcpus[vcpu]?.view ?? 0, true)
    }
    const from = this.vcpus[vcpu]
    if (from) fillRegisters(slot, from.context, this.abi)
    more(slot)
    this.ring.write(this.#startOf(produced), new Uint8Array(slot.buffer))
    this.lie(produced + 1)
    if (from) from.isWaiting = (slot.getUint32(SLOT.flags, true) & FLAG.vcpuPaused) !== 0
    this.channel.raise()
  }

  /** Says how many requests there were. */
  lie(produced: number): void {
    this.ring.write(RING.requestsProduced, new Uint8Array(Uint32Array.of(produced).buffer))
  }

  /** What Xen does when it is notified: takes the responses. */
  takeResponses(): void {
    const produced = this.#index(RING.responsesProduced)
    for (; this.#answered !== produced; this.#answered++) {
      const bytes = this.ring.read(this.#startOf(this.#answered), this.abi.slotLength)
      const slot = new DataView(bytes.buffer)
      const vcpu = slot.getUint32(SLOT.vcpu, true)
      const flags = slot.getUint32(SLOT.flags, true)
      this.responses.push({ vcpu, flags, slot: bytes })
      this.#settle(vcpu, flags, slot)
      const waiting = this.vcpus[vcpu]
      if (waiting && (flags & FLAG.vcpuPaused) !== 0) waiting.isWaiting = false
    }
  }

  /** vm_event_toggle_singlestep() and p2m_altp2m_check() (Xen, arch/x86). */
  #settle(vcpu: number, flags: number, slot: DataView): void {
    const one = this.views.vcpus[vcpu]
    if (!one) return
    if ((flags & FLAG.toggleSingleStep) !== 0) one.isStepping = !one.isStepping
    else if ((flags & FLAG.fastSingleStep) !== 0) {
      one.isStepping = true
      one.fast = slot.getUint16(FAST_STEP.view, true)
    }
    if ((flags & FLAG.view) !== 0) one.view = slot.getUint16(SLOT.view, true)
  }

  /** A vCPU that runs makes an access, and steps where it is to. Whether the access was made. */
  access(vcpu: number, frame: number, access: number): boolean {
    if (!this.runs(vcpu)) return false
    if ((this.views.rightsOf(vcpu, frame) & access) !== access) {
      this.request(vcpu, REASON.memoryAccess, (slot) => {
        slot.setBigUint64(MEMORY_ACCESS.gfn, BigInt(frame), true)
        slot.setUint32(MEMORY_ACCESS.flags, access, true)
      })
      return false
    }
    // hvm_monitor_debug() (Xen 4.17): without the monitor of steps, a vCPU goes on stepping, and never ends.
    if (this.armed.has('singlestep') && this.views.step(vcpu)) this.request(vcpu, REASON.singleStep)
    return true
  }

  #index(offset: number): number {
    return new DataView(this.ring.read(offset, 4).buffer).getUint32(0, true)
  }

  #startOf(index: number): number {
    const slots = 2 ** Math.floor(Math.log2((PAGE - RING.slots) / this.abi.slotLength))
    return RING.slots + (index & (slots - 1)) * this.abi.slotLength
  }
}

/** Offsets of struct hvm_hw_cpu (hvm/save.h). */
const CONTEXT = {
  ...{ rax: 512, rcx: 528, rdx: 536, rbx: 520, rsp: 568, rbp: 544, rsi: 552, rdi: 560 },
  ...{ r8: 576, r9: 584, r10: 592, r11: 600, r12: 608, r13: 616, r14: 624, r15: 632, rflags: 648 },
} as const
const RIP = 640
const CS_RIGHTS = 888
/** A code segment that is present. */
const CODE = 0x9b

/** A vCPU in real mode's flat memory; bit 1 of rflags is always set. */
function contextOf(vcpu: number): Uint8Array {
  const context = new DataView(new ArrayBuffer(1032))
  context.setBigUint64(RIP, BigInt(0x2000 + vcpu * 0x100), true)
  context.setBigUint64(CONTEXT.rflags, 2n, true)
  context.setUint32(CS_RIGHTS, CODE, true)
  return new Uint8Array(context.buffer)
}

/** What Xen hands over of a vCPU's registers with its requests, as far as the peer's vCPUs have any. */
function fillRegisters(slot: DataView, context: Uint8Array, { registers }: Abi): void {
  const from = new DataView(context.buffer)
  for (const [index, offset] of Object.values(CONTEXT).entries()) {
    slot.setBigUint64(SLOT.data + 8 * index, from.getBigUint64(offset, true), true)
  }
  slot.setBigUint64(SLOT.data + registers.rip, from.getBigUint64(RIP, true), true)
  // cr0, cr2, cr3, cr4 follow each other in both.
  for (const [index, name] of (['cr0', 'cr2', 'cr3', 'cr4'] as const).entries()) {
    slot.setBigUint64(SLOT.data + registers[name], from.getBigUint64(656 + 8 * index, true), true)
  }
  if (registers.segments !== undefined) slot.setUint32(SLOT.data + registers.segments, CODE << 20, true)
}
