import { execFile } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { factsIn, type GuestFacts, lastTick, type Tick } from './facts.ts'

/** How a guest is to be. */
export interface GuestOptions {
  readonly type: 'pvh' | 'hvm' | 'pv'
  /** Default: `microvmi-` and the type. */
  readonly name?: string
  readonly vcpus?: number
  /** Default 128, and 192 for HVM. */
  readonly memoryMiB?: number
  /** Two of its processes make its kernel switch between them all the time, from the start. Default false. */
  readonly switching?: boolean
  /** Do not start the vCPUs: there will be no facts. */
  readonly paused?: boolean
  /** Lines of xl.cfg(5) besides the lab's own. */
  readonly configuration?: string
}

/** A guest of Xen's that runs. */
export interface XenGuest extends AsyncDisposable {
  readonly name: string
  readonly type: GuestOptions['type']
  readonly domid: number
  readonly uuid: string
  /** Waits until the guest's processes run, and returns what it told of itself. Throws as soon as the guest fails. */
  ready(): Promise<GuestFacts>
  /** The guest's counts of the last second. */
  tick(): Tick | undefined
  /** All that the guest has written on its console. */
  console(): string
  /** Destroys the domain, if there still is one. */
  destroy(): Promise<void>
}

const run = promisify(execFile)

/** What the guests boot, in dom0 (machine-image.ts). */
const DIRECTORY = '/guest'
/** Where xenconsoled writes the consoles (machine/init). */
const LOGS = '/var/log/xen'
const BOOT_DEADLINE = 180_000
const MEMORY_MIB = { pvh: 128, pv: 128, hvm: 192 }

/** Starts a guest, in dom0. */
export async function startGuest(options: GuestOptions): Promise<XenGuest> {
  const { type, name = `microvmi-${type}`, paused = false } = options
  const log = join(LOGS, `guest-${name}.log`)
  rmSync(log, { force: true })
  const file = join('/tmp', `${name}.cfg`)
  writeFileSync(file, configurationOf({ ...options, name }))
  await run('xl', ['create', ...(paused ? ['-p'] : []), file])
  const domid = Number((await run('xl', ['domid', name])).stdout)
  // "/vm/UUID" (Xen, docs/misc/xenstore-paths.pandoc).
  const path = (await run('xenstore-read', [`/local/domain/${domid}/vm`])).stdout.trim()
  return new RunningGuest(name, type, domid, path.slice('/vm/'.length), log)
}

class RunningGuest implements XenGuest {
  readonly name: string
  readonly type: GuestOptions['type']
  readonly domid: number
  readonly uuid: string
  readonly #log: string

  constructor(name: string, type: GuestOptions['type'], domid: number, uuid: string, log: string) {
    this.name = name
    this.type = type
    this.domid = domid
    this.uuid = uuid
    this.#log = log
  }

  async ready(): Promise<GuestFacts> {
    for (const end = Date.now() + BOOT_DEADLINE; ; await setTimeout(100)) {
      const facts = factsIn(this.console())
      if (facts) return facts
      if (Date.now() > end) throw new Error(`${this.name} does not come up. Its console:\n${this.console()}`)
    }
  }

  tick(): Tick | undefined {
    return lastTick(this.console())
  }

  console(): string {
    return existsSync(this.#log) ? readFileSync(this.#log, 'latin1') : ''
  }

  async destroy(): Promise<void> {
    if (await isThere(this.domid)) await run('xl', ['destroy', String(this.domid)])
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy()
  }
}

async function isThere(domid: number): Promise<boolean> {
  const { stdout } = await run('xl', ['list'])
  return stdout.split('\n').some((line) => line.split(/\s+/)[1] === String(domid))
}

/** xl.cfg(5). */
function configurationOf({ type, name, vcpus = 1, memoryMiB, switching, configuration = '' }: GuestOptions): string {
  const lines = [
    `name = "${name}"`,
    `type = "${type}"`,
    `kernel = "${DIRECTORY}/kernel"`,
    `ramdisk = "${DIRECTORY}/initrd"`,
    `cmdline = "console=hvc0 rdinit=/init mitigations=off nokaslr quiet${switching ? ' MICROVMI_SWITCH=1' : ''}"`,
    `memory = ${memoryMiB ?? MEMORY_MIB[type]}`,
    `vcpus = ${vcpus}`,
    // Otherwise the guest hangs on RDTSCP.
    'tsc_mode = "native"',
    'on_crash = "preserve"',
  ]
  const hvm = ['vga = "none"', 'nographic = 1', 'device_model_override = "/usr/libexec/xen-qemu-system-i386"']
  return [...lines, ...(type === 'hvm' ? hvm : []), configuration, ''].join('\n')
}
