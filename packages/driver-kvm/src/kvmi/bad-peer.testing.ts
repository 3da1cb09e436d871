import { open } from '@microvmi/core'
import { kvmi } from './driver.ts'
import type { Peers } from './peers.testing.ts'

/** The name of the VM behind it. */
export const BAD = 'bad'

/** Milliseconds that a call may take against a bad peer. */
export const HURRY = 300

/**
 * A peer of generation C that does what it should: shakes hands, has one vCPU, allows everything, answers with zeros
 * of the right length. `handle` is the body of a function (id, seq, body) that sees each message first, and returns
 * true for those that it has dealt with; it may use `message(id, seq, body)`, `reply(id, seq, error, data)`,
 * `event(name, vcpu, seq)`, `socket`, and `state`, an object that stays.
 */
export async function badPeer(peers: Peers, path: string, handle: string): Promise<void> {
  await peers.raw(
    path,
    `
    const state = {}
    const message = (id, seq, body) => {
      const header = Buffer.alloc(8)
      header.writeUInt16LE(id, 0)
      header.writeUInt16LE(body.length, 2)
      header.writeUInt32LE(seq, 4)
      socket.write(Buffer.concat([header, body]))
    }
    const reply = (id, seq, error, data = Buffer.alloc(0)) => {
      const code = Buffer.alloc(8)
      code.writeInt32LE(error, 0)
      message(id, seq, Buffer.concat([code, data]))
    }
    // struct kvmi_event_hdr, struct kvmi_vcpu_event, and room for what is the event's own
    const event = (name, vcpu, seq) => {
      const body = Buffer.alloc(8 + 544 + 24)
      body.writeUInt16LE(name, 0)
      body.writeUInt16LE(544, 8)
      body.writeUInt16LE(vcpu, 10)
      message(1, seq, body)
    }
    const handle = (id, seq, body) => { ${handle} }
    const version = Buffer.from('01000000f81f00000100000000000000', 'hex')
    const info = Buffer.from('01000000000000000000000000000000', 'hex')
    const answer = (id, seq, body) => {
      if (handle(id, seq, body) || id === 1) return
      if (id === 2) return reply(id, seq, 0, version)
      // v12 has no message 22: by that it is told from v11.
      if (id === 4) return reply(id, seq, body.readUInt16LE(0) === 22 ? -2 : 0)
      if (id === 8) return reply(id, seq, 0, info)
      if (id === 12) return reply(id, seq, 0, Buffer.alloc(body.readUInt16LE(8)))
      if (id === 7) return reply(id, seq, 0, Buffer.alloc(472 + 16 * body.readUInt16LE(8)))
      if (id === 16) {
        reply(id, seq, 0)
        return event(1, body.readUInt16LE(0), 77)
      }
      reply(id, seq, 0)
    }
    let bytes = Buffer.alloc(0)
    let shaken = false
    socket.on('connect', () => socket.write(hello('${BAD}', '00'.repeat(16))))
    socket.on('data', (data) => {
      bytes = Buffer.concat([bytes, data])
      if (!shaken && bytes.length >= 24) {
        shaken = true
        bytes = bytes.subarray(24)
      }
      while (shaken && bytes.length >= 8 && bytes.length >= 8 + bytes.readUInt16LE(2)) {
        const [id, size, seq] = [bytes.readUInt16LE(0), bytes.readUInt16LE(2), bytes.readUInt32LE(4)]
        answer(id, seq, bytes.subarray(8, 8 + size))
        bytes = bytes.subarray(8 + size)
      }
    })
    `,
  )
}

/** Opens the VM behind the only peer that is to dial in at a socket, which does so once somebody listens. */
export async function openBad(peers: Peers, path: string, handle: string) {
  const opening = open(kvmi, { vm: BAD, socket: path, wait: 3000, timeout: HURRY })
  // Before it is awaited, nobody else sees that it fails.
  opening.catch(() => undefined)
  await badPeer(peers, path, handle)
  return opening
}
