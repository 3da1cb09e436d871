import { expect, test } from 'vitest'
import { FakePartition } from './partition.testing.ts'
import { LiveRunState } from './run-state.ts'

test('a pause ends as it found the partition', () => {
  const partition = new FakePartition(1)
  const run = new LiveRunState(partition)
  run.pause()
  expect(run.state()).toBe('paused')
  run.resume()
  expect(run.state()).toBe('running')

  partition.suspend()
  run.pause()
  run.resume()
  expect(run.state()).toBe('paused')
  expect(partition.calls).toEqual(['suspend', 'resume', 'suspend'])
})

test('a state that is there already is not set again', () => {
  const partition = new FakePartition(1)
  const run = new LiveRunState(partition)
  run.setState('running')
  run.setState('paused')
  run.setState('paused')
  run.setState('running')
  expect(partition.calls).toEqual(['suspend', 'resume'])
})
