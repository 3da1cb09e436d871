import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Deadline } from '@microvmi/lab-inside'
import { windowsPath, wine } from './wine.ts'

/** A JavaScript module to run on Node for Windows. */
export interface WindowsJob {
  readonly module: Uint8Array
  readonly environment: Readonly<Record<string, string>>
  /** Takes each line that it writes to the file that `MICROVMI_RESULTS` names. */
  readonly result: (line: string) => void
  /** Milliseconds. */
  readonly timeout: number
  readonly signal: AbortSignal
}

/** Milliseconds between two looks at the results. */
const LOOK = 50

/** Runs it; its exit status and what it wrote. */
export async function runOnWindows(job: WindowsJob): Promise<{ readonly status: number; readonly output: string }> {
  const { command, environment, node, modules } = await wine()
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-windows-'))
  const path = (name: string) => join(directory, name)
  const limit = new Deadline(job.timeout, job.signal)
  try {
    symlinkSync(modules, path('node_modules'))
    writeFileSync(path('main.mjs'), job.module)
    writeFileSync(path('results'), '')
    // Node for Windows does not write to a pipe of Wine's.
    const output = openSync(path('output'), 'w')
    const child = spawn(command, [node, '--enable-source-maps', '--preserve-symlinks', windowsPath(path('main.mjs'))], {
      cwd: directory,
      stdio: ['ignore', output, output],
      env: {
        ...process.env,
        ...environment,
        ...job.environment,
        NO_COLOR: '1',
        MICROVMI_RESULTS: windowsPath(path('results')),
      },
      signal: limit.signal,
      killSignal: 'SIGKILL',
    })
    closeSync(output)
    const status = await followed(child, path('results'), job.result)
    return { status, output: readFileSync(path('output'), 'utf8') }
  } finally {
    limit[Symbol.dispose]()
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Gives each line of a growing file to `take` until the process has ended. */
async function followed(child: ReturnType<typeof spawn>, file: string, take: (line: string) => void): Promise<number> {
  const fd = openSync(file, 'r')
  const chunk = Buffer.alloc(65_536)
  let text = ''
  const look = () => {
    for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk)) {
      text += chunk.toString('utf8', 0, length)
    }
    const lines = text.split('\n')
    text = lines.pop() ?? ''
    for (const line of lines) take(line)
  }
  let status: number | undefined
  const ended = once(child, 'close').then(
    ([code]) => {
      status = code ?? -1
    },
    () => {
      status = -1
    },
  )
  try {
    while (status === undefined) {
      await Promise.race([ended, setTimeout(LOOK)])
      look()
    }
    look()
    return status
  } finally {
    closeSync(fd)
  }
}
