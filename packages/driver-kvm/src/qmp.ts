import { readFileSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { LineBuffer } from './line-buffer.ts'
import { Socket } from './socket.ts'

/** A JSON object. */
export type JsonObject = { readonly [Name in string]?: unknown }

/** An event of QMP's (QEMU, docs/interop/qmp-spec: "Asynchronous events"). */
export interface QmpEvent {
  readonly event: string
  readonly data: JsonObject
  /** It came while a command of ours was under way. */
  readonly during: string | undefined
}

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/**
 * A QMP connection (QEMU, docs/interop/qmp-spec): commands are synchronous; events that arrive meanwhile, or between
 * commands, are queued for `onEvents`.
 */
export class Qmp {
  readonly version: string
  readonly #socket: Socket
  readonly #timeout: number
  readonly #lines = new LineBuffer()
  readonly #events: QmpEvent[] = []
  #next = 0
  #onEvents: (() => void) | undefined
  #scheduled = false

  /** @param timeout milliseconds that an exchange may take */
  constructor(path: string, timeout: number) {
    this.#socket = new Socket(path, 'the QMP monitor')
    this.#timeout = timeout
    try {
      this.version = this.#greet()
      this.execute('qmp_capabilities')
    } catch (error) {
      this.#socket.close()
      throw error
    }
  }

  get path(): string {
    return this.#socket.path
  }

  /** QEMU's process. */
  get pid(): number | undefined {
    return this.#socket.peer
  }

  /** Whether QEMU has closed the connection. Cheap. */
  get hasEnded(): boolean {
    return this.#socket.hasEnded
  }

  /** Runs a command and returns what it answers. Throws `HYPERVISOR` with QEMU's own words when it fails. */
  execute(command: string, args?: JsonObject): unknown {
    const id = `microvmi-${++this.#next}`
    const deadline = performance.now() + this.#timeout
    this.#socket.send(encoder.encode(`${JSON.stringify({ execute: command, arguments: args, id })}\n`), deadline)
    for (;;) {
      const message = this.#message(deadline, command)
      if (message.id !== id) continue
      // What came in the same piece behind the answer would wait for the next piece.
      this.#noteEvents()
      if ('return' in message) return message.return
      const { desc } = object(message.error, 'error')
      throw new MicrovmiError('HYPERVISOR', `QEMU refuses ${command}: ${String(desc)}`, { cause: message.error })
    }
  }

  /** Runs a command that answers with an object. */
  query(command: string, args?: JsonObject): JsonObject {
    return object(this.execute(command, args), command)
  }

  /** Runs a command of the human monitor and returns its text. */
  human(command: string, vcpu = 0): string {
    const text = this.execute('human-monitor-command', { 'command-line': command, 'cpu-index': vcpu })
    if (typeof text === 'string') return text
    throw new MicrovmiError('PROTOCOL', `'${command}' answered with no text`)
  }

  /** Has `callback` called on the event loop when events wait (see `takeEvents`), or when QEMU has hung up. */
  watch(callback: () => void): void {
    this.#onEvents = callback
    this.#socket.watch(() => callback())
    if (this.#events.length > 0) this.#schedule()
  }

  /** Whether waiting for events keeps the process alive. */
  keepAlive(alive: boolean): void {
    this.#socket.keepAlive(alive)
  }

  /** The events so far. Throws `VM_GONE` when QEMU has closed the connection. */
  takeEvents(): QmpEvent[] {
    for (let bytes = this.#socket.receiveNow(); bytes.length > 0; bytes = this.#socket.receiveNow()) {
      this.#lines.push(bytes)
      this.#noteEvents()
    }
    return this.#events.splice(0)
  }

  close(): void {
    this.#socket.close()
  }

  #greet(): string {
    const end = performance.now() + this.#timeout
    let message: JsonObject
    try {
      message = this.#message(Math.min(end, performance.now() + GREETING_TIME), undefined)
    } catch (error) {
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      if (hasOtherClient(this.#socket.path)) throw held(this.#socket.path)
      message = this.#message(end, undefined)
    }
    const version = object(object(message.QMP, 'greeting').version, 'version')
    const { major, minor, micro } = object(version.qemu, 'version')
    return `QEMU ${Number(major)}.${Number(minor)}.${Number(micro)}`
  }

  /** The next message that is no event; events are queued. */
  #message(deadline: number, during: string | undefined): JsonObject {
    for (;;) {
      const line = this.#lines.next()
      if (!line) {
        this.#lines.push(this.#socket.receive(deadline))
        continue
      }
      const message = parse(line)
      if (!this.#noteEvent(message, during)) return message
    }
  }

  /** Between commands only events arrive. */
  #noteEvents(): void {
    for (let line = this.#lines.next(); line; line = this.#lines.next()) this.#noteEvent(parse(line), undefined)
  }

  #noteEvent(message: JsonObject, during: string | undefined): boolean {
    if (typeof message.event !== 'string') return false
    const data = typeof message.data === 'object' && message.data !== null ? (message.data as JsonObject) : {}
    this.#events.push({ event: message.event, data, during })
    // Nobody may have asked for events for days: what nobody takes must not fill our memory.
    if (this.#events.length > EVENT_LIMIT) this.#events.shift()
    this.#schedule()
    return true
  }

  /** What came during a command is told on the event loop, not within the command. */
  #schedule(): void {
    if (this.#scheduled || !this.#onEvents) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#onEvents?.()
    })
  }
}

const EVENT_LIMIT = 4096
/** QEMU greets within a millisecond. After so many, it is worth to look whether it serves someone else. */
const GREETING_TIME = 250

/**
 * Whether a socket's server has accepted someone's connection and lets ours wait: in /proc/net/unix, the state of the
 * one is 03 (SS_CONNECTED, linux/net.h), of the other 02 (SS_CONNECTING).
 */
function hasOtherClient(path: string): boolean {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n')
  const states = lines.filter((line) => line.endsWith(` ${path}`)).map((line) => line.split(/\s+/)[5])
  return states.includes('03') && states.includes('02')
}

function held(path: string): MicrovmiError {
  return new MicrovmiError(
    'BUSY',
    `QMP at ${path} has a client already, and a monitor serves one at a time. Close that one, or give QEMU a second ` +
      'monitor: -qmp unix:PATH,server=on,wait=off',
  )
}

function parse(line: Uint8Array): JsonObject {
  const text = decoder.decode(line)
  try {
    return object(JSON.parse(text), 'message')
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new MicrovmiError('PROTOCOL', `the QMP monitor sent what is no JSON: ${text.slice(0, 80)}`, { cause: error })
  }
}

/** An object, or `PROTOCOL`. */
export function object(value: unknown, what: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  throw new MicrovmiError('PROTOCOL', `QMP: ${what} is no object`)
}

/** An array, or `PROTOCOL`. */
export function array(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new MicrovmiError('PROTOCOL', `QMP: ${what} is no array`)
}
