/**
 * A GDB stub for tests: `node --import tsx gdb-peer.testing.ts MANNER` prints its port. It does what VirtualBox's does,
 * with its defects (VirtualBox 7.2, DBGCGdbRemoteStub.cpp): two vCPUs, of which one hits each breakpoint 50 ms after it
 * runs; and has manners that ours must bear with.
 */
import { createServer, type Socket } from 'node:net'
import { execute } from './console-commands.testing.ts'

const [manner = 'well'] = process.argv.slice(2)
const hex = (text: string) => Buffer.from(text, 'latin1').toString('hex').toUpperCase()
const frame = (data: string) => {
  const sum = Buffer.from(data, 'latin1').reduce((total, byte) => total + byte, 0) & 0xff
  return `$${data}#${sum.toString(16).toUpperCase().padStart(2, '0')}`
}
const STOP = frame('T05thread:01;')

let hasLeftover = manner === 'leftover'

class Stub {
  readonly #socket: Socket
  readonly #breakpoints = new Set<string>()
  /** Of two vCPUs. */
  #halted = 2
  #timer: NodeJS.Timeout | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('close', () => clearTimeout(this.#timer))
    const event = manner === 'leftover' ? frame(`O${hex('\ndbgf event: Unknown breakpoint 0! (raw)\n')}`) : ''
    socket.write(`${event}${STOP}${STOP}`)
    let pending = ''
    socket.on('data', (data) => {
      pending += data.toString('latin1')
      const end = pending.indexOf('#')
      // What comes in one piece with a packet, before or behind it, is lost.
      if (end >= 0 && pending.length >= end + 3) {
        this.#packet(pending.slice(pending.indexOf('$') + 1, end))
        pending = ''
      } else if (pending.startsWith('\x03')) {
        this.#halt()
        pending = ''
      }
    })
  }

  #packet(data: string): void {
    // After the greeting: `bl` is asked for with it.
    const isGreeting = data === 'c' || data === `qRcmd,${Buffer.from('bl ').toString('hex')}`
    if (manner === 'stalling' && !isGreeting) return
    this.#socket.write(manner === 'refusing' && !isGreeting ? '-' : '+')
    const [, command] = /^qRcmd,([0-9a-f]*)$/i.exec(data) ?? []
    if (command !== undefined) this.#execute(Buffer.from(command, 'hex').toString('latin1'))
    else if (data === 'c') this.#resume()
    else if (/^Hg[12]$/.test(data)) this.#reply('OK')
    else if (data === 's') this.#socket.write(STOP)
    else if (data.startsWith('Z1,')) this.#set(data.slice(1))
    else if (data.startsWith('z1,')) this.#reply(this.#breakpoints.delete(data.slice(1)) ? 'OK' : 'E4E')
    else process.exit(126) // What else there is ends the VM, or is of no use.
  }

  /** The last character is dropped; binary has a NUL behind it. */
  #execute(command: string): void {
    const asked = command.slice(0, -1)
    const said = this.#breakpointCommand(asked) ?? execute(asked).replaceAll('\r', '')
    if (manner === 'chatty')
      this.#socket.write(`${frame(`O${hex('dbgf event: Unknown breakpoint 0! (raw)\n')}`)}${STOP}`)
    for (const line of said.match(/.*\n/g) ?? []) this.#socket.write(frame(`O${hex(line)}`))
    this.#reply('OK')
  }

  /** One breakpoint that somebody has left, where the manner says so. */
  #breakpointCommand(command: string): string | undefined {
    if (command === 'bl') return hasLeftover ? ' 0x0 e 1 x ffffffff80007d48 0000 (0001 to ~0)   [unknown bp]\n' : ''
    if (command !== 'bc 0') return undefined
    hasLeftover = false
    return ''
  }

  #set(point: string): void {
    const isFull = this.#breakpoints.size >= 4
    if (!isFull) this.#breakpoints.add(point)
    this.#reply(isFull ? 'E0E' : 'OK')
  }

  /** Only when all vCPUs are halted. */
  #resume(): void {
    if (this.#halted < 2) return
    this.#halted = 0
    this.#timer = setTimeout(() => {
      if (this.#halted > 0 || this.#breakpoints.size === 0) return
      this.#halted = 1
      this.#socket.write(`${frame(`O${hex('\ndbgf event: Breakpoint 0! (raw)\n')}`)}${STOP}`)
    }, 50)
  }

  #halt(): void {
    if (this.#halted < 2) this.#socket.write(STOP.repeat(2 - this.#halted))
    this.#halted = 2
  }

  #reply(data: string): void {
    this.#socket.write(frame(`${data}${manner === 'nul' ? '\0' : ''}`))
  }
}

/** The first thing that is said by what is no stub, or a bad one. */
const GREETINGS: Readonly<Record<string, string>> = {
  mute: '',
  broken: '$T05thread:01;#00',
  console: 'Welcome to the VirtualBox Debugger!\r\nVBoxDbg> ',
  endless: '$'.padEnd(2 ** 22, 'x'),
  'real-mode': frame(`O${hex('error: Invalid CPU mode 1.\n')}`),
}

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy())
  const greeting = GREETINGS[manner]
  if (greeting === undefined) new Stub(socket)
  else socket.write(greeting)
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') console.log(address.port)
})
