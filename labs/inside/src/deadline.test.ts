import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { Deadline } from './deadline.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

test('it comes when the time is up, however much garbage is collected', async () => {
  const { signal } = new Deadline(50, new AbortController().signal)
  for (let times = 0; times < 10; times++) {
    collectGarbage()
    await setTimeout(10)
  }
  expect(signal.aborted).toBe(true)
})

test('it comes with another signal, also with one that has come before', () => {
  const other = new AbortController()
  const deadline = new Deadline(60_000, new AbortController().signal, other.signal)
  expect(deadline.signal.aborted).toBe(false)
  other.abort()
  expect(deadline.signal.aborted).toBe(true)
  deadline[Symbol.dispose]()
  const late = new Deadline(60_000, other.signal)
  expect(late.signal.aborted).toBe(true)
  late[Symbol.dispose]()
})

test('disposed of, it does not come any more', async () => {
  const other = new AbortController()
  const deadline = new Deadline(10, other.signal)
  deadline[Symbol.dispose]()
  other.abort()
  await setTimeout(30)
  expect(deadline.signal.aborted).toBe(false)
})
