import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { open } from '@microvmi/core'
import { afterEach, expect, test, vi } from 'vitest'
import { createGuest, type Guest, type GuestOptions, mock } from './index.ts'

// Busy machines take their time.
vi.setConfig({ testTimeout: 30_000 })

const made: Guest[] = []

function make(options: GuestOptions = {}): Guest {
  const guest = createGuest({ name: 'clock', ...options })
  made.push(guest)
  return guest
}

afterEach(() => {
  for (const guest of made.splice(0)) guest.remove()
})

const withCode = (code: string) => expect.objectContaining({ code })

test('a manual clock stands still until it is moved, exactly as far', async () => {
  const guest = make()
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(guest.vcpu(0).clock).toBe(0)
  guest.runNow(1234)
  expect([guest.vcpu(0).clock, guest.vcpu(1).clock]).toEqual([1234, 1234])
  await guest.run(1000)
  await guest.advance(2)
  expect([guest.vcpu(0).clock, guest.vcpu(1).clock]).toEqual([4234, 4234])
})

test('run waits for loops to answer', async () => {
  const guest = make()
  const vm = await open(mock, { vm: 'clock' })
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' })
  let seen = 0
  const loop = (async () => {
    for await (const event of intercept) {
      await new Promise((resolve) => setImmediate(resolve))
      seen += 1
      event.reply()
    }
  })()
  const before = guest.count('cr')
  await guest.run(20_000)
  expect(guest.vcpu(0).clock).toBe(20_000)
  expect(seen).toBeGreaterThan(20)
  intercept.close()
  await loop
  expect(seen).toBeLessThanOrEqual(guest.count('cr') - before)
  await vm.close()
})

test('run gives up on an event that nobody answers, and names it', async () => {
  const guest = make()
  const vm = await open(mock, { vm: 'clock' })
  const events = vm.intercept({ kind: 'cr', register: 'cr3' })[Symbol.asyncIterator]()
  events.next().then(({ value }) => value?.hold())
  await expect(guest.run(20_000, { timeout: 30 })).rejects.toThrow(
    /did not get there within 30 ms: vcpu \d waits for the answer to its cr event/,
  )
  await vm.close()
  guest.pause()
  await expect(guest.run(10, { timeout: 10 })).rejects.toThrow('the guest is paused')
})

test('run goes on when a pause ends', async () => {
  const guest = make()
  guest.pause()
  const running = guest.run(100)
  setTimeout(() => guest.resume(), 5)
  await running
  expect(guest.vcpu(0).clock).toBe(100)
})

test('a handler cannot run the guest it runs in', async () => {
  const guest = make()
  const vm = await open(mock, { vm: 'clock' })
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {
    guest.runNow(1)
  })
  guest.runNow(10_000)
  await expect(intercept.ended).rejects.toThrow(withCode('BUSY'))
  await vm.close()
})

test('a handler may reset the guest it runs in', async () => {
  const guest = make()
  const vm = await open(mock, { vm: 'clock' })
  let resets = 0
  vm.intercept({ kind: 'cr', register: 'cr3' }, () => {
    if (resets < 3) guest.reset()
    resets += 1
  })
  guest.runNow(10_000)
  guest.runNow(10_000)
  guest.runNow(10_000)
  guest.runNow(10_000)
  expect(resets).toBeGreaterThan(3)
  await vm.close()
})

test('bad numbers', async () => {
  const guest = make()
  expect(() => guest.runNow(-1)).toThrow(withCode('BAD_ARGUMENT'))
  await expect(guest.run(1.5)).rejects.toThrow(withCode('BAD_ARGUMENT'))
  expect(() => guest.vcpu(2)).toThrow(withCode('BAD_ARGUMENT'))
  expect(() => guest.interrupt(0, 32)).toThrow(withCode('BAD_ARGUMENT'))
  expect(() => guest.process('nobody')).toThrow(withCode('BAD_ARGUMENT'))
  expect(() => guest.read(0xb_0000, 1)).toThrow(withCode('BAD_ARGUMENT'))
})

test('a real clock goes by itself, and stops in a pause', async () => {
  const guest = make({ clock: 'real', speed: 200_000 })
  await guest.run(2000)
  expect(guest.vcpu(0).clock).toBeGreaterThanOrEqual(2000)
  guest.pause()
  const { clock } = guest.vcpu(0)
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(guest.vcpu(0).clock).toBe(clock)
})

/** What a process does that opens the demo, and how it ends. */
async function run(program: string): Promise<string> {
  const source = `
    import { open } from '@microvmi/core'
    import { mock } from '${new URL('./index.ts', import.meta.url).href}'
    const vm = await open(mock, { vm: 'demo' })
    process.on('exit', () => console.log('end'))
    ${program}`
  const cwd = fileURLToPath(new URL('..', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', source], {
    cwd,
    timeout: 20_000,
  })
  let output = ''
  child.stdout.on('data', (data) => {
    output += data
  })
  child.stderr.pipe(process.stderr)
  await once(child, 'close')
  return output
}

test('a guest that runs by itself keeps no process alive', async () => {
  expect(await run('')).toBe('end\n')
})

test('armed events do, until the loop over them ends', async () => {
  const program = `
    let left = 3
    for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
      console.log(event.kind)
      if (--left === 0) break
    }`
  expect(await run(program)).toBe('cr\ncr\ncr\nend\n')
})
