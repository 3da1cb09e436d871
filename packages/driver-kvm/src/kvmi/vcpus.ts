import { MicrovmiError } from '@microvmi/core/driver'
import type { Connection } from './connection.ts'
import { expectDone, kernelError } from './errors.ts'
import type { EventAnswer, KvmiEvent } from './event-message.ts'

/** KVM has at most so many vCPUs (arch/x86/include/asm/kvm_host.h of the kernels meant). */
const MOST_VCPUS = 1024

/**
 * What each vCPU waits for: it raises one event at a time and stands still until the answer. A pause is an event too:
 * one for each command, raised behind all others.
 */
export class Vcpus {
  readonly #connection: Connection
  /** The event that a vCPU waits in. */
  readonly #unanswered = new Map<number, KvmiEvent>()
  /** Those of them that nobody was told of yet, in the order of their arrival. */
  #queue: KvmiEvent[] = []
  /** How many pause events a vCPU owes for commands of ours. */
  readonly #owed = new Map<number, number>()
  #count: number
  /** The app has paused the VM. */
  #paused = false
  /** Only this one may run: the others would see what is put aside for its next instruction. */
  #alone: number | undefined
  /** Only this one is stopped, for a call. */
  #stopped: number | undefined
  #unhooked = false
  /** Called within commands when there is something for `take`. */
  onQueued: () => void = () => {}
  /** Called when a vCPU's event has its answer, before the vCPU goes on. */
  onAnswer: (vcpu: number) => void = () => {}

  constructor(connection: Connection) {
    this.#connection = connection
    this.#count = this.#askCount()
    connection.onEvent = (event) => this.#arrived(event)
  }

  get count(): number {
    return this.#count
  }

  /** Whether the app has paused the VM. */
  get isPaused(): boolean {
    return this.#paused
  }

  /** Whether QEMU has asked us to let go: for a migration, a snapshot, a shutdown. */
  get isUnhooked(): boolean {
    return this.#unhooked
  }

  /** The event that a vCPU waits in, if any. */
  waitingIn(vcpu: number): KvmiEvent | undefined {
    return this.#unanswered.get(vcpu)
  }

  /** Whether the event is still the one that its vCPU waits in. */
  isWaiting(event: KvmiEvent): boolean {
    return this.#unanswered.get(event.vcpu) === event
  }

  /** Takes the next event that nobody was told of. */
  take(): KvmiEvent | undefined {
    return this.#queue.shift()
  }

  /** Takes those that fit out of the queue. */
  takeAll(fits: (event: KvmiEvent) => boolean): KvmiEvent[] {
    const taken = this.#queue.filter(fits)
    if (taken.length > 0) this.#queue = this.#queue.filter((event) => !taken.includes(event))
    return taken
  }

  /** Stops every vCPU, or finds it held by an event. */
  pause(): void {
    if (this.#paused) return
    this.#paused = true
    try {
      this.#stopAll()
    } catch (error) {
      this.resume()
      throw error
    }
  }

  /** Ends `pause`. */
  resume(): void {
    this.#paused = false
    this.#letGoOn()
  }

  /** Stops all but one. */
  runAlone(vcpu: number): void {
    this.#alone = vcpu
    try {
      this.#stopAll()
    } catch (error) {
      this.runTogether()
      throw error
    }
  }

  /** Ends `runAlone`. */
  runTogether(): void {
    this.#alone = undefined
    this.#letGoOn()
  }

  /** Does `work` while a vCPU stands still, and leaves it as it was. */
  whileHeld<T>(vcpu: number, work: () => T): T {
    this.#connection.poll()
    if (this.#unanswered.has(vcpu)) return work()
    this.#stopped = vcpu
    try {
      this.#stopAll()
      return work()
    } finally {
      this.#stopped = undefined
      this.#letGoOn()
    }
  }

  /** Lets a vCPU go on behind its event; one that is to stand still stops again at once. */
  answer(event: KvmiEvent, answer: EventAnswer = { action: 'continue' }): void {
    if (!this.isWaiting(event)) return
    const { vcpu, name } = event
    if (this.#standsStill(vcpu) && name !== 'pause' && !this.#owed.get(vcpu)) this.#sendPauses([vcpu])
    this.#unanswered.delete(vcpu)
    this.onAnswer(vcpu)
    this.#connection.answer(event, answer)
  }

  #standsStill(vcpu: number): boolean {
    return this.#paused || this.#stopped === vcpu || (this.#alone !== undefined && this.#alone !== vcpu)
  }

  /** Stops those that are to stand still, and waits for them. */
  #stopAll(): void {
    const deadline = this.#connection.deadline()
    this.#connection.poll()
    const still = Array.from({ length: this.#count }, (_, vcpu) => vcpu).filter((vcpu) => this.#standsStill(vcpu))
    this.#sendPauses(still.filter((vcpu) => !this.#unanswered.has(vcpu) && !this.#owed.get(vcpu)))
    for (const vcpu of still) this.#waitUntilHeld(vcpu, deadline)
  }

  /** Lets those go on that need not stand still any more. */
  #letGoOn(): void {
    if (this.#connection.hasEnded) return
    for (const event of [...this.#unanswered.values()]) {
      if ((event.name === 'pause' || event.name === 'trap') && !this.#standsStill(event.vcpu)) this.answer(event)
    }
  }

  #waitUntilHeld(vcpu: number, deadline: number): void {
    while (!this.#unanswered.has(vcpu)) this.#connection.wait(deadline)
  }

  #sendPauses(vcpus: readonly number[]): void {
    const { requests } = this.#connection
    let refusal: MicrovmiError | undefined
    this.#connection.askAll(
      vcpus.length,
      (message, index) => {
        const vcpu = vcpus[index] ?? 0
        requests.pauseVcpu(message, vcpu)
        // Noted before the answer: the event may overtake it.
        this.#owed.set(vcpu, (this.#owed.get(vcpu) ?? 0) + 1)
      },
      ({ error }, index) => {
        const vcpu = vcpus[index] ?? 0
        if (error === 0) return
        this.#owed.set(vcpu, (this.#owed.get(vcpu) ?? 1) - 1)
        refusal ??= kernelError(error, `pausing vCPU ${vcpu}`)
      },
    )
    if (refusal) throw refusal
  }

  #arrived(event: KvmiEvent): void {
    if (event.name === 'unhook') {
      this.#unhooked = true
      this.onQueued()
      return
    }
    this.#check(event)
    this.#unanswered.set(event.vcpu, event)
    if (event.name === 'pause') this.#owed.set(event.vcpu, (this.#owed.get(event.vcpu) ?? 0) - 1)
    if (event.name === 'pause' || event.name === 'trap') {
      // A trap is the other half of an injection of ours: the exception is on its way.
      if (!this.#standsStill(event.vcpu)) this.answer(event)
    } else {
      this.#queue.push(event)
      this.onQueued()
    }
  }

  #check({ name, vcpu }: KvmiEvent): void {
    if (this.#unanswered.has(vcpu)) {
      throw new MicrovmiError('PROTOCOL', `KVMi sent an event (${name}) of vCPU ${vcpu}, which waits in another one`)
    }
    if (name === 'pause' && !this.#owed.get(vcpu)) {
      throw new MicrovmiError('PROTOCOL', `KVMi sent a pause of vCPU ${vcpu} that nobody asked for`)
    }
    if (name === 'createVcpu' && vcpu < MOST_VCPUS) this.#count = Math.max(this.#count, vcpu + 1)
    if (vcpu >= this.#count) {
      throw new MicrovmiError('PROTOCOL', `KVMi sent an event (${name}) of vCPU ${vcpu}; there are ${this.#count}`)
    }
  }

  /** kvmi_get_guest_info_reply, kvmi_vm_get_info_reply: u32 vcpu_count. */
  #askCount(): number {
    const answer = this.#connection.ask((message) => this.#connection.requests.getInfo(message), 4)
    expectDone(answer.error, 'reading the number of vCPUs')
    const count = answer.view.getUint32(answer.start, true)
    if (count >= 1 && count <= MOST_VCPUS) return count
    throw new MicrovmiError('PROTOCOL', `KVMi tells of ${count} vCPUs: a VM has 1 to ${MOST_VCPUS}`)
  }
}
