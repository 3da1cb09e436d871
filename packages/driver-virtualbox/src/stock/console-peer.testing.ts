/**
 * A debug console for tests: `node --import tsx console-peer.testing.ts MANNER` prints its port. It has 1 MiB of memory,
 * and the manners that ours must bear with.
 */
import { createServer, type Socket } from 'node:net'

const PROMPT = 'VBoxDbg> '
const EVENT = '\r\ndbgf event/0: CPU 0 has halted! (raw)\r\nrax=0000000080001234 rbx=ffffffff80009000\r\n'
const [manner = 'well'] = process.argv.slice(2)
const memory = Buffer.alloc(2 ** 20)

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy())
  if (manner === 'mute') return
  if (manner === 'another') return void socket.write(`220 mail.example ESMTP ${PROMPT}`)
  if (manner === 'gdb') return void socket.write('$T05thread:01;#07')
  if (manner === 'endless') return talk(socket)
  socket.write(`Welcome to the VirtualBox Debugger!\r\nCurrent VM is 80806000, CPU #0\r\n${PROMPT}`)
  let pending = ''
  let received = 0
  socket.on('data', (data) => {
    const text = data.toString('latin1')
    // VirtualBox never goes on from a command that ends at the last byte of its ring.
    if (/[;\n]/.test(text[2047 - (received % 2048)] ?? '')) return void socket.removeAllListeners('data')
    received += text.length
    pending += text
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      answer(socket, pending.slice(0, end))
      pending = pending.slice(end + 1)
    }
  })
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') console.log(address.port)
})

function talk(socket: Socket): void {
  while (!socket.destroyed && socket.write('x'.repeat(65_536)));
  socket.once('drain', () => talk(socket))
}

function answer(socket: Socket, line: string): void {
  if (manner === 'stalling') return
  // The first line alone.
  if (manner === 'late' && line.includes('microvmi-1-end')) return void setTimeout(() => say(socket, line), 600)
  say(socket, line)
}

function say(socket: Socket, line: string): void {
  if (manner === 'hanging-up') return void socket.destroy()
  const commands = line.split(';').map((command) => command.trim())
  const said = commands.map(execute)
  if (manner === 'chatty') socket.write(`${EVENT}${PROMPT}`)
  for (const text of said) {
    const isMarker = text.startsWith('microvmi')
    socket.write(manner === 'chatty' && !isMarker ? `${text}${PROMPT}${EVENT}` : text)
  }
  socket.write(PROMPT)
}

function execute(command: string): string {
  const [, marker] = /^echo "(.*)"$/.exec(command) ?? []
  if (marker !== undefined) return `${marker}\r\n`
  const [, at, count] = /^dq %%([0-9a-f]+) L ([0-9a-f]+)$/.exec(command) ?? []
  if (manner === 'complaining') return 'error: VERR_NOT_SUPPORTED\r\n'
  // As another version might say it.
  if (manner === 'foreign') return `${at}: 00 01 02 03 04 05 06 07\r\n`
  const more = manner === 'long' ? 4 : 0
  if (at !== undefined && count !== undefined) return read(Number(`0x${at}`), Number(`0x${count}`) + more)
  const [, letter = '', to, value] = /^e([bwdq]) %%([0-9a-f]+) ([0-9a-f]+)$/.exec(command) ?? []
  if (to === undefined || value === undefined) return `Syntax error: Unknown command '${command}'!\r\n`
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(`0x${value}`))
  bytes.copy(memory, Number(`0x${to}`), 0, { b: 1, w: 2, d: 4, q: 8 }[letter])
  return ''
}

function read(address: number, count: number): string {
  let text = ''
  for (let done = 0; done < count; done += 2) {
    const at = address + done * 8
    const words = Math.min(2, count - done)
    const there = Math.max(0, Math.min(words, (memory.length - at) / 8))
    const digits = (value: bigint) => value.toString(16).padStart(16, '0')
    const said = Array.from({ length: there }, (_, index) => digits(memory.readBigUInt64LE(at + index * 8)))
    if (said.length > 0) text += `%%${digits(BigInt(at))}: ${said.join(' ')}\r\n`
    if (there < words) {
      const bad = digits(BigInt(at + there * 8))
      return `${text}error: VERR_PGM_INVALID_GC_PHYSICAL_ADDRESS:  Reading memory at %%${bad}.\r\n`
    }
    if (manner === 'short') return text
  }
  return text
}
