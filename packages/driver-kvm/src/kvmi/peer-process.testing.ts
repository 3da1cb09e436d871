/**
 * The process that peers live in: a synchronous client would wait for ever for one on its own thread. Takes calls from
 * `peers.testing.ts` by IPC.
 */
import { createConnection, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { hello, type PeerOptions, QemuPeer } from './qemu-peer.testing.ts'

const peers = new Map<number, QemuPeer>()
let next = 1

/** What can be called from the other process: of a guest, what it says of itself. */
const calls = {
  start(options: PeerOptions) {
    const peer = new QemuPeer(options)
    peers.set(next, peer)
    return next++
  },
  stop(peer: number) {
    find(peer).stop()
    find(peer).guest.remove()
    peers.delete(peer)
  },
  addVcpu: (peer: number) => find(peer).addVcpu(),
  unhook: (peer: number) => find(peer).unhook(),
  describe(peer: number) {
    const { guest } = find(peer)
    const processes = guest.processes.map((process) => ({
      ...process,
      labels: Object.fromEntries(process.labels),
      mappings: [],
    }))
    const labels = [...guest.kernel.labels].map(([name, address]) => ({
      name,
      address,
      physical: guest.translate(guest.kernel, address),
    }))
    return { id: guest.id, vcpuCount: guest.vcpuCount, processes, kernel: labels, ranges: guest.ranges }
  },
  translate: (peer: number, process: string, address: bigint) =>
    find(peer).guest.translate(find(peer).guest.process(process), address),
  vcpu: (peer: number, vcpu: number) => find(peer).guest.vcpu(vcpu),
  read: (peer: number, address: number, length: number) => find(peer).guest.read(address, length),
  write: (peer: number, address: number, bytes: Uint8Array) => find(peer).guest.write(address, bytes),
  run: (peer: number, instructions: number) => find(peer).guest.run(instructions),
  process(peer: number, name: string) {
    const { breakpoints, debugExceptions, rounds } = find(peer).guest.process(name)
    return { breakpoints, debugExceptions, rounds }
  },
  /**
   * A peer that is given as the body of a function of the socket: for what no kernel would say. It dials in once, when
   * there is somewhere to.
   */
  async raw(path: string, source: string) {
    const socket = await dialIn(path)
    new Function('socket', 'hello', 'Buffer', source)(socket, hello, Buffer)
    // What the source does on connecting it has yet to do.
    socket.emit('connect')
  },
}

/** A connection to who listens there, as soon as somebody does. */
async function dialIn(path: string): Promise<Socket> {
  for (;;) {
    const socket = createConnection(path)
    const isConnected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.on('error', () => resolve(false))
    })
    if (isConnected) return socket
    await setTimeout(5)
  }
}

function find(peer: number): QemuPeer {
  const found = peers.get(peer)
  if (found) return found
  throw new Error(`there is no peer ${peer}`)
}

process.on('message', async ({ id, method, args }: { id: number; method: keyof typeof calls; args: never[] }) => {
  try {
    const call = calls[method] as (...args: never[]) => unknown
    process.send?.({ id, result: await call(...args) })
  } catch (error) {
    process.send?.({ id, error: String(error) })
  }
})
process.on('disconnect', () => process.exit())
process.send?.({ id: 0, result: undefined })

export type Calls = typeof calls
