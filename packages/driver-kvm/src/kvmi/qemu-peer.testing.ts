import { createConnection, type Socket } from 'node:net'
import { createGuest, type Guest, type GuestOptions, mock } from '@microvmi/mock'
import { KernelPeer } from './kernel-peer.testing.ts'

/** A session with the mock guest, as its driver gives it to core. */
export type MockBackend = Awaited<ReturnType<typeof openMock>>

/** How a peer is made. */
export interface PeerOptions {
  readonly generation: 'A' | 'C'
  readonly socket: string
  readonly guest: GuestOptions
  /** 32 digits. */
  readonly uuid: string
  /** What our half of the handshake must have, in 40 digits. */
  readonly cookieHash?: string
  /** Message ids that QEMU does not allow. */
  readonly deniedCommands?: readonly number[]
  /** Event ids that QEMU does not allow. */
  readonly deniedEvents?: readonly number[]
}

/** Milliseconds between two attempts to dial in. */
const RECONNECT = 20

/** Plays QEMU: dials in, shakes hands, and gives the connection to what plays the kernel; again when it ends. */
export class QemuPeer {
  readonly guest: Guest
  readonly #options: PeerOptions
  #socket: Socket | undefined
  #kernel: KernelPeer | undefined
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(options: PeerOptions) {
    this.#options = options
    this.guest = createGuest(options.guest)
    this.#dial()
  }

  unhook(): boolean {
    return this.#kernel?.unhook() ?? false
  }

  addVcpu(): void {
    this.guest.addVcpu()
    this.#kernel?.addVcpu()
  }

  /** QEMU ends. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#socket?.destroy()
  }

  #dial(): void {
    if (this.#stopped) return
    const socket = createConnection(this.#options.socket)
    this.#socket = socket
    socket.on('error', () => {})
    socket.on('connect', () => void this.#serve(socket))
    socket.on('close', () => {
      this.#kernel?.release()
      this.#kernel = undefined
      this.#timer = setTimeout(() => this.#dial(), RECONNECT)
    })
  }

  async #serve(socket: Socket): Promise<void> {
    socket.write(hello(this.guest.name, this.#options.uuid))
    const backend = await openMock(this.guest)
    let bytes: Buffer = Buffer.alloc(0)
    let kernel: KernelPeer | undefined
    socket.on('data', (data) => {
      bytes = Buffer.concat([bytes, data])
      if (!kernel) {
        if (bytes.length < 24) return
        const { cookieHash } = this.#options
        const hash = bytes.subarray(4, 24).toString('hex')
        if (bytes.readUInt32LE(0) !== 24 || (cookieHash !== undefined && hash !== cookieHash)) {
          socket.destroy()
          return
        }
        bytes = bytes.subarray(24)
        const wire = { send: (one: Buffer) => void socket.write(one), close: () => socket.destroy() }
        kernel = new KernelPeer(this.#options, backend, this.guest, wire)
        this.#kernel = kernel
      }
      while (bytes.length >= 8 && bytes.length >= 8 + bytes.readUInt16LE(2)) {
        const length = 8 + bytes.readUInt16LE(2)
        kernel.message(bytes.subarray(0, length))
        bytes = bytes.subarray(length)
      }
    })
  }
}

/** struct kvmi_qemu2introspector. */
export function hello(name: string, uuid: string): Buffer {
  const bytes = Buffer.alloc(96)
  bytes.writeUInt32LE(96, 0)
  Buffer.from(uuid, 'hex').copy(bytes, 4)
  bytes.writeBigInt64LE(1_700_000_000n, 24)
  bytes.write(name, 32, 63, 'utf8')
  return bytes
}

function openMock(guest: Guest) {
  return mock.open({ vm: guest.id, options: {}, timeout: 5000, signal: undefined })
}
