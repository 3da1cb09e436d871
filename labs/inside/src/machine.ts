import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { type CpioEntry, cpio, createRunDirectory, directoriesOf, noteOwner } from '@microvmi/lab-qemu'
import type { Emulator } from './emulator.ts'
import { lines, Port } from './port.ts'

/** An emulated machine, whose init unpacks a job from /dev/vda, runs it and serves the ports (see `runInMachine`). */
export interface Machine {
  readonly emulator: Emulator
  /** The emulator's, for all but the first serial port (which is the machine's log), the job's disk and the ports. */
  readonly arguments: readonly string[]
}

/** What an emulated machine is to do. */
export interface Job {
  readonly command: readonly string[]
  /** Files to have there, by path below the root. */
  readonly files: ReadonlyMap<string, Uint8Array | string>
  readonly environment?: Readonly<Record<string, string>>
  readonly stdout: Writable
  readonly stderr: Writable
  /** Takes each line that the command writes to the port `RESULTS`. */
  readonly result?: (line: string) => void
  /** What is at the other end of the machine's first virtio console, if there is to be one. */
  readonly terminal?: { readonly input: Readable; readonly output: Writable }
  /** Is called when the machine has come up, with the milliseconds since power-on. */
  readonly started?: (milliseconds: number) => void
  /** Milliseconds from power-on to the command's end. */
  readonly timeout: number
  /** Turns the machine off. */
  readonly signal?: AbortSignal
}

/** Its serial ports: /dev/vport0p1 and on. What it writes to one is here before what it then writes to the next. */
const PORTS = ['stdout', 'stderr', 'results', 'status'] as const

/** Where a command finds the port of the results. */
export const RESULTS = deviceOf('results')

/** What the port of the status says before the command runs. */
const STARTED = 'started'

/** Boots a machine, runs a command in it, and returns the command's exit status. The machine is gone then. */
export async function runInMachine({ emulator, arguments: own }: Machine, job: Job): Promise<number> {
  const directory = createRunDirectory()
  const path = (name: string) => join(directory, name)
  const off = new AbortController()
  const powerOn = performance.now()
  let status: number | undefined
  const takers = {
    stdout: (bytes: Buffer) => job.stdout.write(bytes),
    stderr: (bytes: Buffer) => job.stderr.write(bytes),
    results: lines(job.result ?? (() => undefined)),
    status: lines((line) => {
      if (line === STARTED) {
        job.started?.(performance.now() - powerOn)
        return
      }
      status = Number(line)
      off.abort()
    }),
  }
  const ports = PORTS.map((name) => new Port(path(name), takers[name]))
  const { terminal } = job
  if (terminal) ports.push(new Port(path('terminal'), (bytes) => terminal.output.write(bytes), terminal.input))
  let child: ChildProcess | undefined
  try {
    writeFileSync(path('job'), archiveOf(job))
    await Promise.all(ports.map((port) => port.listening()))
    const log = openSync(path('log'), 'w', 0o600)
    // The kernel ends the emulator when its parent has ended: no path leaves one behind.
    const words = [
      '--pdeathsig',
      'KILL',
      '--',
      emulator.command,
      ...emulator.leading,
      ...own,
      ...devices(path),
      ...(terminal ? console(path) : []),
    ]
    child = spawn('setpriv', words, { stdio: ['ignore', log, log], env: { ...process.env, ...emulator.environment } })
    closeSync(log)
    if (child.pid !== undefined) noteOwner(directory, child.pid)
    const limit = AbortSignal.any([off.signal, AbortSignal.timeout(job.timeout), ...(job.signal ? [job.signal] : [])])
    await ending(child, limit)
    if (status === undefined) throw new Error(silence(job, path))
    await Promise.all(ports.map((port) => port.ended))
    return status
  } finally {
    if (child !== undefined) kill(child)
    for (const port of ports) port[Symbol.dispose]()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Waits until a process has ended, and kills it when the signal comes. */
async function ending(child: ChildProcess, limit: AbortSignal): Promise<void> {
  const end = () => kill(child)
  if (limit.aborted) end()
  limit.addEventListener('abort', end, { once: true })
  try {
    await once(child, 'exit')
  } finally {
    limit.removeEventListener('abort', end)
  }
}

/** Of a program that could not be started there is no process: the kernel would take 0 for our own group. */
function kill(child: ChildProcess): void {
  if (child.pid !== undefined) child.kill('SIGKILL')
}

/** Why there is no exit status. */
function silence({ timeout, signal }: Job, path: (name: string) => string): string {
  if (signal?.aborted) return 'the machine was turned off before its command had ended'
  const told = ['log', 'console'].map((name) => (existsSync(path(name)) ? readFileSync(path(name), 'latin1') : ''))
  return `the machine told no exit status within ${timeout / 1000} s. What it said last:\n${told.join('\n').slice(-4000)}`
}

function deviceOf(port: (typeof PORTS)[number]): string {
  return `/dev/vport0p${PORTS.indexOf(port) + 1}`
}

function archiveOf({ command, files, environment = {} }: Job): Buffer {
  const script = [
    ...Object.entries(environment).map(([name, value]) => `export ${name}=${quoted(value)}`),
    `echo ${STARTED} >${deviceOf('status')}`,
    'cd /job',
    `exec ${command.map(quoted).join(' ')}`,
  ].join('\n')
  const entries: CpioEntry[] = [
    ...directoriesOf(['job/run', ...files.keys()]),
    { path: 'job/run', type: 'file', data: script },
    ...[...files].map(([path, data]): CpioEntry => ({ path, type: 'executable', data })),
  ]
  const archive = cpio(entries)
  // A disk has whole sectors.
  return Buffer.concat([archive, Buffer.alloc(-archive.length & 511)])
}

/** A word for a POSIX shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}

function devices(path: (name: string) => string): string[] {
  return [
    ...['-serial', `file:${path('console')}`],
    ...['-drive', `if=virtio,format=raw,readonly=on,file=${path('job')}`],
    ...['-device', 'virtio-serial-pci'],
    ...PORTS.flatMap((port, index) => [
      ...['-chardev', `socket,id=${port},path=${path(port)}`],
      ...['-device', `virtserialport,chardev=${port},nr=${index + 1}`],
    ]),
  ]
}

function console(path: (name: string) => string): string[] {
  return ['-chardev', `socket,id=terminal,path=${path('terminal')}`, '-device', 'virtconsole,chardev=terminal']
}
