import { execFile } from 'node:child_process'
import { win32 } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { VmListing } from '@microvmi/core/driver'
import { guidIn } from './guid.ts'

const run = promisify(execFile)

/** A VM as the host's management names it. */
export interface HostVm {
  /** In lower case, without braces. */
  readonly id: string
  readonly name: string
  readonly state: VmListing['state']
}

/** Base64 keeps names whole, whatever code page the console has. */
const SCRIPT = [
  "$ErrorActionPreference = 'Stop'",
  '$vms = @(Get-VM | ForEach-Object { @{ id = $_.Id.ToString(); name = $_.Name; state = $_.State.ToString() } })',
  '[Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes((ConvertTo-Json -Compress -InputObject $vms)))',
].join('; ')

/** The most that is taken of its answer: a thousand VMs with the longest names fit. */
const LONGEST_ANSWER = 4 * 2 ** 20

/** Milliseconds from its end by force to its output's. */
const GRACE = 200

/** Microsoft.HyperV.PowerShell.VMState; transitions and critical states are `unknown`. */
const STATES: Readonly<Record<string, VmListing['state']>> = {
  Running: 'running',
  Paused: 'paused',
  Off: 'stopped',
  Saved: 'saved',
}

/**
 * What PowerShell's Hyper-V module tells, where there is one. It is a help for names and for VMs that do not run, never
 * needed: without PowerShell, module or rights there is nothing.
 */
export async function hostVms(timeout: number): Promise<readonly HostVm[]> {
  const root = process.env.SystemRoot
  if (root === undefined || timeout <= 0) return []
  const program = win32.join(root, 'System32', 'WindowsPowerShell', 'v1.0', 'powershell.exe')
  const script = Buffer.from(SCRIPT, 'utf16le').toString('base64')
  const answer = run(program, ['-NoProfile', '-NonInteractive', '-EncodedCommand', script], {
    ...{ timeout, maxBuffer: LONGEST_ANSWER, windowsHide: true },
  })
  const late = new AbortController()
  try {
    const { stdout } = await Promise.race([answer, after(timeout + GRACE, late.signal)])
    return parseHostVms(stdout)
  } catch {
    // Whatever keeps it from answering (no PowerShell, no module, no rights, no time): the libraries list by themselves.
    return []
  } finally {
    late.abort()
    // What it started and left behind may hold its output: that must not keep this process up.
    answer.child.stdout?.destroy()
    answer.child.stderr?.destroy()
  }
}

async function after(milliseconds: number, signal: AbortSignal): Promise<never> {
  await setTimeout(milliseconds, undefined, { signal })
  throw new Error('PowerShell does not end')
}

/** Reads the script's answer; what is not as it should be is left out. */
export function parseHostVms(answer: string): HostVm[] {
  let values: unknown
  try {
    values = JSON.parse(Buffer.from(answer.trim(), 'base64').toString('utf8'))
  } catch {
    return []
  }
  if (!Array.isArray(values)) return []
  return values.flatMap((value: unknown) => {
    const { id, name, state }: Record<string, unknown> = typeof value === 'object' && value !== null ? { ...value } : {}
    const guid = typeof id === 'string' ? guidIn(id) : undefined
    if (guid === undefined || typeof name !== 'string' || typeof state !== 'string') return []
    return [{ id: guid, name, state: (Object.hasOwn(STATES, state) ? STATES[state] : undefined) ?? 'unknown' }]
  })
}
