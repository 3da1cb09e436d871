import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MicrovmiError } from '@microvmi/core'
import { mock } from '@microvmi/mock'
import { expect, test } from 'vitest'
import { backends, changed } from './break-driver.testing.ts'
import { type ConformanceCase, ConformanceError, conformance, type Fixture, register, Skipped } from './index.ts'
import { mockFixture } from './mock-fixture.testing.ts'

function find(fixture: Fixture, group: string, name: string): ConformanceCase {
  const found = conformance(fixture).cases.find((one) => one.group === group && one.name === name)
  if (!found) throw new Error(`there is no case '${group}: ${name}'`)
  return found
}

const reading = (fixture: Fixture) => find(fixture, 'memory: reads', 'known memory reads as it is')

test('which cases there are depends on the driver alone: the guest need not be there', () => {
  const guest = () => {
    throw new Error('it is asked for too early')
  }
  const few = conformance({ driver: { ...mock, possible: ['memory.read', 'events.cr'] }, guest }).cases
  const all = conformance({ driver: mock, guest }).cases
  expect(few.length).toBeLessThan(all.length)
  expect(few.filter(({ group }) => group === 'events: cr').length).toBeGreaterThan(10)
  // A kind that the driver does not have stays in sight.
  expect(few.filter(({ group }) => group === 'events: msr')).toHaveLength(1)
  expect(few.filter(({ group }) => group.startsWith('replies'))).toHaveLength(0)
})

test('a kind of event that a driver adds has its cases', () => {
  const driver = { ...mock, possible: [...mock.possible, 'events.balloon' as 'events.cr'] }
  const { cases } = conformance({ ...mockFixture(), driver })
  expect(cases.filter(({ group }) => group === 'events: balloon').length).toBeGreaterThan(10)
})

test('without a context, a case that cannot be run rejects: it does not pass unseen', async () => {
  const fixture = mockFixture({ known: ({ vm }) => ({ vm }) })
  const error = await reading(fixture)
    .run()
    .catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(Skipped)
  expect(error).toMatchObject({ reason: 'the fixture leaves out Guest.memory.known' })
})

test('a fixture that fails, fails the case', async () => {
  const guest = () => Promise.reject(new Error('the lab is on fire'))
  await expect(reading({ driver: mock, guest }).run({ skip: () => {} })).rejects.toThrow('the lab is on fire')
})

test('a guest that does not come up in time fails the case', async () => {
  const guest = () => new Promise<never>(() => {})
  await expect(reading({ driver: mock, guest, startup: 20 }).run()).rejects.toThrow(
    'Fixture.guest() took longer than 20 ms',
  )
})

test('an open that never ends fails the case', async () => {
  const driver = { ...mock, open: () => new Promise<never>(() => {}) }
  await expect(reading(mockFixture({ driver, slowness: 0.01 })).run()).rejects.toThrow(
    /^open\(\) of .* took longer than 50 ms/,
  )
})

test('what goes wrong behind a case that was skipped is not hidden', async () => {
  const driver = backends((backend) =>
    changed(backend, { close: () => Promise.reject(new Error('close has failed')) }),
  )(mock)
  const fixture = mockFixture({ driver, known: ({ vm }) => ({ vm }) })
  await expect(reading(fixture).run({ skip: () => {} })).rejects.toThrow('close has failed')
})

test('what a case has changed is put back when it fails', async () => {
  const released: string[] = []
  const driver = backends((backend) => {
    const { running } = backend
    if (!running) throw new Error('the backend has no running')
    return changed(backend, {
      running: changed(running, {
        state: () => 'running',
        resume: () => {
          released.push('resumed')
          running.resume()
        },
      }),
    })
  })(mock)
  const one = find(mockFixture({ driver }), 'pause', 'the guest stands still until the lease ends')
  await expect(one.run()).rejects.toThrow(ConformanceError)
  expect(released).toEqual(['resumed'])
})

test('one session is kept for many cases, and given up when a case fails', async () => {
  let opened = 0
  let broken = false
  const driver = {
    ...mock,
    open: async (request: Parameters<typeof mock.open>[0]) => {
      opened += 1
      const backend = await mock.open(request)
      const { memory } = backend
      const read = (address: number, into: Uint8Array) => {
        if (broken) throw new MicrovmiError('PROTOCOL', 'broken')
        return memory.read(address, into)
      }
      return changed(backend, { memory: changed(memory, { read }) })
    },
  }
  const fixture = mockFixture({ driver })
  const guest = await fixture.guest()
  const suite = conformance({ ...fixture, guest: () => guest, after: () => undefined, reuse: true })
  const [first, second] = suite.cases.filter(({ group }) => group === 'memory: reads')
  await first?.run()
  await second?.run()
  expect(opened).toBe(1)
  broken = true
  await expect(second?.run()).rejects.toThrow('broken')
  broken = false
  await first?.run()
  expect(opened).toBe(2)
  await suite.close()
  fixture.after?.(guest)
})

test('register makes a group of each, gives each case its time, and closes at the end', async () => {
  const lines: string[] = []
  let timeout = 0
  const suite = register(mockFixture({ slowness: 2 }), {
    describe: (name, define) => {
      lines.push(name)
      define()
    },
    test: (name, options) => {
      lines.push(`- ${name}`)
      timeout = options.timeout
    },
    after: () => lines.push('closed'),
  })
  expect(lines[0]).toBe('conformance of mock')
  expect(lines.at(-1)).toBe('closed')
  expect(lines.filter((line) => line.startsWith('- '))).toHaveLength(suite.cases.length)
  expect(new Set(suite.cases.map(({ group }) => group)).size).toBe(
    lines.filter((line) => !line.startsWith('- ')).length - 2,
  )
  expect(timeout).toBeGreaterThan(2 * 60_000)
})

test('it runs under node:test, which tells what was skipped', { timeout: 60_000 }, async () => {
  const program = fileURLToPath(new URL('./node-test.testing.ts', import.meta.url))
  const args = ['--import', 'tsx', '--test', '--test-reporter', 'tap', program]
  // A runner of its own, whatever started this one.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, args, { env })
  expect(stdout).toMatch(/ok \d+ - known memory reads as it is/)
  expect(stdout).toMatch(/# SKIP the fixture leaves out Guest.memory.end/)
  expect(stdout).toMatch(/^# fail 0$/m)
})
