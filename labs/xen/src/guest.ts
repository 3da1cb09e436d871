import { execFile } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { configurationOf, defaultName, type GuestOptions } from './configuration.ts'
import { factsIn, type GuestFacts, lastTick, type Tick } from './facts.ts'

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

/** Where xenconsoled writes the consoles (machine/init). */
const LOGS = '/var/log/xen'
const BOOT_DEADLINE = 180_000
/** `xl list` takes its time here. */
const LOOKS_PER_LIST = 20

/** Starts a guest, in dom0. */
export async function startGuest(options: GuestOptions): Promise<XenGuest> {
  const { type, name = defaultName(type), paused = false } = options
  const configuration = configurationOf(options)
  const log = join(LOGS, `guest-${name}.log`)
  rmSync(log, { force: true })
  const file = join('/tmp', `${name}.cfg`)
  writeFileSync(file, configuration)
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
    const end = Date.now() + BOOT_DEADLINE
    for (let look = 1; ; look++) {
      const facts = factsIn(this.console())
      if (facts) return facts
      const isGone = look % LOOKS_PER_LIST === 0 && !(await isThere(this.domid))
      if (isGone || Date.now() > end) {
        const what = isGone ? 'has ended' : `has not come up in ${BOOT_DEADLINE / 1000} s`
        throw new Error(`${this.name} ${what}. Its console:\n${this.console()}`)
      }
      await setTimeout(100)
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
