import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

/** A process that opens a fake VM with restoreOnExit, pauses it, and tells each call that the backend sees. */
const program = `
  import { writeSync } from 'node:fs'
  import { open } from '${new URL('./open.ts', import.meta.url).href}'
  import { fakeDriver } from '${new URL('./fake.testing.ts', import.meta.url).href}'
  const { driver, opened } = fakeDriver()
  const vm = await open(driver, { vm: 'guest', restoreOnExit: true })
  vm.pause()
  const calls = opened[0].log.calls
  const push = calls.push.bind(calls)
  calls.push = (call) => { writeSync(1, call + '\\n'); return push(call) }
  writeSync(1, 'ready\\n')
  if (process.argv.at(-1) === 'exit') process.exit(3)
  if (process.argv.at(-1) === 'close') await vm.close()
  else setInterval(() => {}, 1000)
`

async function run(how: 'exit' | 'close' | NodeJS.Signals) {
  const cwd = fileURLToPath(new URL('..', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program, how], { cwd })
  let output = ''
  child.stdout.on('data', (data) => {
    output += data
    if (output.includes('ready') && how.startsWith('SIG')) child.kill(how as NodeJS.Signals)
  })
  child.stderr.pipe(process.stderr)
  const [code, signal] = await once(child, 'close')
  return { code, signal, calls: output.trim().split('\n').slice(1) }
}

test('the guest is released at exit', async () => {
  expect(await run('exit')).toEqual({ code: 3, signal: null, calls: ['resume', 'release'] })
})

test.each(['SIGINT', 'SIGTERM'] as const)(
  'the guest is released on %s, which then ends the process',
  async (signal) => {
    expect(await run(signal)).toEqual({ code: null, signal, calls: ['resume', 'release'] })
  },
)

test('after close nothing is left to do at exit', async () => {
  expect(await run('close')).toEqual({ code: 0, signal: null, calls: ['resume', 'release', 'close'] })
})
