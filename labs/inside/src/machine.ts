import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { type CpioEntry, cpio, createRunDirectory, directoriesOf, noteOwner } from '@microvmi/lab-qemu'
import { Deadline } from './deadline.ts'
import { lines } from './port.ts'

/** An emulated machine, whose init runs a job and tells of it by four channels (see `runInMachine`). */
export interface Machine {
  /** Gets ready what the emulator needs for one run. */
  prepare(run: Run): Promise<Prepared>
}

/** What a machine is given for one run. */
export interface Run {
  /** Where a file of the run's own lies. `log` is the emulator's output; `console` is told where a run fails. */
  path(name: string): string
  /** The job: an archive of cpio, of whole sectors, to be unpacked at the root. */
  readonly archive: Buffer
  /** Take what the job writes to each channel, in the order in which it was written. */
  readonly channels: Readonly<Record<Channel, (bytes: Buffer) => void>>
  readonly terminal?: Job['terminal']
}

/** An emulator's command for one run, and what serves it meanwhile. */
export interface Prepared extends Disposable {
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  /** Takes the emulator's own output. Without it, that goes into `log`. */
  readonly output?: (bytes: Buffer) => void
  /** When all channels have given what there was, after the emulator's end. */
  readonly ended: Promise<unknown>
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

/** In the machine: /dev/vport0p1 and on. What is written to one is here before what is then written to the next. */
export const CHANNELS = ['stdout', 'stderr', 'results', 'status'] as const
export type Channel = (typeof CHANNELS)[number]

/** Where a command finds the channel of the results. */
export const RESULTS = deviceOf('results')

/** What the channel of the status says before the command runs. */
const STARTED = 'started'

/** Boots a machine, runs a command in it, and returns the command's exit status. The machine is gone then. */
export async function runInMachine(machine: Machine, job: Job): Promise<number> {
  const directory = createRunDirectory()
  const path = (name: string) => join(directory, name)
  const off = new AbortController()
  const powerOn = performance.now()
  let status: number | undefined
  const channels = {
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
  const { terminal } = job
  let prepared: Prepared | undefined
  let child: ChildProcess | undefined
  let limit: Deadline | undefined
  try {
    const run = { path, archive: archiveOf(job), channels, ...(terminal ? { terminal } : {}) }
    prepared = await machine.prepare(run)
    const log = openSync(path('log'), 'w', 0o600)
    // The kernel ends the emulator when its parent has ended: no path leaves one behind.
    child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...prepared.command], {
      stdio: ['ignore', prepared.output ? 'pipe' : log, log],
      env: { ...process.env, ...prepared.environment },
    })
    closeSync(log)
    if (prepared.output) child.stdout?.on('data', prepared.output)
    if (child.pid !== undefined) noteOwner(directory, child.pid)
    limit = new Deadline(job.timeout, off.signal, ...(job.signal ? [job.signal] : []))
    await ending(child, limit.signal)
    if (status === undefined) throw new Error(silence(limit.signal.aborted, job, path))
    await prepared.ended
    return status
  } finally {
    limit?.[Symbol.dispose]()
    if (child !== undefined) kill(child)
    prepared?.[Symbol.dispose]()
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
function silence(isEnded: boolean, { timeout, signal }: Job, path: (name: string) => string): string {
  if (signal?.aborted) return 'the machine was turned off before its command had ended'
  const told = ['log', 'console'].map((name) => (existsSync(path(name)) ? readFileSync(path(name), 'latin1') : ''))
  const what = isEnded ? `told no exit status within ${timeout / 1000} s` : 'ended and told no exit status'
  return `the machine ${what}. What it said last:\n${told.join('\n').slice(-4000)}`
}

function deviceOf(channel: Channel): string {
  return `/dev/vport0p${CHANNELS.indexOf(channel) + 1}`
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
