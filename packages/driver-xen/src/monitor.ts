import { MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'
import { FLAG, SLOT } from './abi/vm-event.ts'
import type { Watch } from './library-calls.ts'
import { MonitorRing } from './monitor-ring.ts'
import type { SessionNote } from './session-note.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

/**
 * A domain's monitor: the ring, and the event channel that tells of requests. Xen has one for each domain.
 *
 * Every request is answered once: an unanswered one leaves its vCPU standing for good, also when the monitor is
 * disabled (docs/decisions/0006-events-on-xen.md).
 */
export class Monitor {
  readonly #xen: Xen
  readonly #domid: number
  readonly #page: number
  readonly #channel: number
  readonly #port: number
  readonly #ring: MonitorRing
  readonly #watch: Watch
  readonly #note: SessionNote
  #hasAnswers = false
  /** The ring's page is not mapped any more. */
  #isClosed = false

  /**
   * @param note by which a predecessor's monitor is known
   * @param wake called on the event loop when there may be requests
   */
  constructor(xen: Xen, domid: number, note: SessionNote, wake: () => void) {
    this.#xen = xen
    this.#domid = domid
    this.#note = note
    const ring = enable(xen, domid)
    if (ring === undefined) throw inUse(domid)
    this.#page = ring.page
    const { evtchn, koffi } = xen.libraries
    this.#ring = ringOf(xen, ring.page)
    this.#ring.initialise()
    this.#channel = Number(evtchn.open(0, 0))
    try {
      this.#port = this.#channel === 0 ? -1 : evtchn.bind_interdomain(this.#channel, domid, ring.port)
      if (this.#port < 0) throw failed('xenevtchn_bind_interdomain', `the event channel of domain ${domid}`)
      note.begin('monitor')
      this.#watch = koffi.node.poll(evtchn.fd(this.#channel), { readable: true }, wake)
      this.#watch.unref()
    } catch (error) {
      if (this.#channel !== 0) evtchn.close(this.#channel)
      disable(xen, domid, this.#page)
      note.end('monitor')
      throw error
    }
  }

  /** Whether waiting for requests keeps the process alive. */
  keepAlive(alive: boolean): void {
    if (alive) this.#watch.ref()
    else this.#watch.unref()
  }

  /** Takes note of a notification: the channel can send the next. */
  acknowledge(): void {
    const { evtchn } = this.#xen.libraries
    const port = evtchn.pending(this.#channel)
    if (port >= 0) evtchn.unmask(this.#channel, port)
  }

  /** Whether there is a request to take. */
  get hasRequest(): boolean {
    return !this.#isClosed && this.#ring.hasRequest
  }

  take(slot: Uint8Array): boolean {
    return !this.#isClosed && this.#ring.take(slot)
  }

  sleep(): boolean {
    return this.#isClosed || this.#ring.sleep()
  }

  /** Answers a request; Xen hears of it at the next `notify`. */
  answer(slot: Uint8Array): void {
    if (this.#isClosed) return
    this.#ring.answer(slot)
    this.#hasAnswers = true
  }

  notify(): void {
    if (!this.#hasAnswers || this.#isClosed) return
    this.#hasAnswers = false
    this.#xen.libraries.evtchn.notify(this.#channel, this.#port)
  }

  /** All requests are answered, and the domain is paused or nothing is armed. */
  close(): void {
    this.#isClosed = true
    const { evtchn } = this.#xen.libraries
    this.#watch.close()
    evtchn.unbind(this.#channel, this.#port)
    evtchn.close(this.#channel)
    disable(this.#xen, this.#domid, this.#page)
    this.#note.end('monitor')
  }
}

/**
 * Frees the vCPUs that wait for a dead session's answer: they go on with one on a new ring, and vCPUs that do not wait
 * take it as nothing. The ring is used for that alone.
 */
export function answerFor(xen: Xen, domid: number, vcpus: number): void {
  xen.libraries.xc.monitor_disable(xen.handle, domid)
  const first = enable(xen, domid)
  if (!first) throw inUse(domid)
  const { evtchn } = xen.libraries
  const ring = ringOf(xen, first.page)
  ring.initialise()
  const channel = Number(evtchn.open(0, 0))
  try {
    const port = channel === 0 ? -1 : evtchn.bind_interdomain(channel, domid, first.port)
    if (port < 0) throw failed('xenevtchn_bind_interdomain', `the event channel of domain ${domid}`)
    const slot = new Uint8Array(xen.abi.slotLength)
    const view = new DataView(slot.buffer)
    view.setUint32(SLOT.version, xen.abi.vmEvent, true)
    view.setUint32(SLOT.flags, FLAG.vcpuPaused, true)
    for (let vcpu = 0; vcpu < vcpus; ) {
      for (let count = 0; count < ring.slots && vcpu < vcpus; count++, vcpu++) {
        view.setUint32(SLOT.vcpu, vcpu, true)
        ring.answer(slot)
      }
      evtchn.notify(channel, port)
    }
    evtchn.unbind(channel, port)
  } finally {
    if (channel !== 0) evtchn.close(channel)
    disable(xen, domid, first.page)
  }
}

function inUse(domid: number): MicrovmiError {
  const advice = 'end the program that has it; if that was killed, xen-access or any program that disables the monitor'
  return new MicrovmiError(
    'BUSY',
    `the monitor of domain ${domid} is in use, and Xen has one for each domain: ${advice}`,
  )
}

/** `undefined` where the monitor is in use. */
function enable(xen: Xen, domid: number): { page: number; port: number } | undefined {
  const port = new Uint32Array(1)
  // libxenctrl takes the ring's page out of the guest's reach (tools/libs/ctrl/xc_vm_event.c).
  const page = Number(xen.libraries.xc.monitor_enable(xen.handle, domid, port))
  if (page !== 0) return { page, port: port[0] ?? 0 }
  const error = failed('xc_monitor_enable', `the monitor of domain ${domid}`)
  if ((error.cause as { errno: number }).errno === ERRNO.EBUSY) return undefined
  throw error
}

function disable(xen: Xen, domid: number, page: number): void {
  xen.libraries.xc.monitor_disable(xen.handle, domid)
  xen.libraries.libc.munmap(page, PAGE_SIZE)
}

function ringOf(xen: Xen, page: number): MonitorRing {
  return new MonitorRing(new Uint8Array(xen.libraries.koffi.view(page, PAGE_SIZE)), xen.abi)
}
